"""Where things lie: one object knows the folders of a checkout, so that no other module joins paths by hand."""

from dataclasses import dataclass
from pathlib import Path

from pipelines import names
from pipelines.errors import PodiumError


@dataclass(frozen=True)
class Workspace:
    """The folders of one checkout (or of a test's temporary one)."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def experiments(self) -> Path:
        return self.root / "experiments"

    @property
    def kernels(self) -> Path:
        return self.root / "kernels"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def image_constraints(self) -> Path:
        """The versions of Kaggle's image."""
        return self.root / "constraints-kaggle.txt"

    @property
    def mlflow_db(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def resolved_lock(self) -> Path:
        return self.experiments / "resolved.lock"

    @property
    def ledger(self) -> Path:
        """Every submission's record and the small files it needs; meant to be committed."""
        return self.root / "ledger"

    @property
    def encoders(self) -> Path:
        """Sentence encoders as they are served, exported from their checkpoints."""
        return self.data / "encoders"

    def search_index(self, corpus: str) -> Path:
        """The index of a corpus, which the search app serves."""
        return self.data / "search" / _one_word("corpus", corpus)

    def data_dir(self, competition_slug: str) -> Path:
        """What a competitor may see: train, test and sample files in Kaggle's form."""
        return self.data / _one_word("competition", competition_slug)

    def local_host(self, competition_slug: str) -> Path:
        """What only the embedded leaderboard reads: the answers and its ledger."""
        return self.data / "local_host" / _one_word("competition", competition_slug)


def _one_word(what: str, value: str) -> str:
    """A name that was typed or read becomes one folder, never a way to another one."""
    try:
        return names.name(value)
    except ValueError as error:
        raise PodiumError(f"{what}: {error}") from None
