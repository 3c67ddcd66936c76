"""Tracking with MLflow. Only the modules of this folder import it, and all of them after what it reads is set here."""

import os

# A training calls nobody but its own tracking server. Its requests are short and repeated by the sender alone: with
# MLflow's own patience, two minutes a try and seven tries, a server that hangs would hold a finished run for hours, and
# a repeated `create_run` would leave two runs.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
