"""Search in a corpus of articles: lexical, dense and both; no module here needs torch but `torch_encoder`."""
