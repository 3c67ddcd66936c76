"""An encoder in training for sentence embeddings: unit vectors, and the two losses that shape them."""

from torch import Tensor, nn
from torch.nn import functional

from components.losses.by_task import contrastive, similarity_distillation
from components.models.sentence.wide import TextVectors, pool_texts
from components.models.shared.output import ModelOutput


class SentenceModel(nn.Module):
    """An encoder's vectors, of norm 1; nothing else is learnt but the encoder, which is what is kept."""

    def __init__(self, encoder: TextVectors, *, temperature: float, teacher_temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature, self.teacher_temperature = temperature, teacher_temperature

    @property
    def layer_stacks(self) -> list[nn.ModuleList]:
        """The encoder's."""
        return self.encoder.layer_stacks

    @property
    def embedding_layers(self) -> list[nn.Module]:
        """The encoder's."""
        return self.encoder.embedding_layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> ModelOutput:
        """Ids and mask (B, L) -> vectors (B, D) as logits.

        labels: (B, T) floats are a teacher's vectors, whose similarities are learnt; (B,) integers number the pairs,
        whose two texts stand one after the other.
        """
        vectors = functional.normalize(pool_texts(self.encoder, input_ids, attention_mask), dim=-1)
        return ModelOutput(logits=vectors, loss=None if labels is None else self._loss(vectors, labels))

    def _loss(self, vectors: Tensor, labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            return similarity_distillation(
                vectors, labels, temperature=self.temperature, teacher_temperature=self.teacher_temperature
            )
        left, right = vectors.view(-1, 2, vectors.shape[-1]).unbind(1)
        return contrastive(left, right, temperature=self.temperature)
