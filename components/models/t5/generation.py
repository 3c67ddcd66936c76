"""Writing text with one T5 or several in one joint decoding: greedy and beam search over a key-value cache.

Several models are joined by the mean of their next-token log-probabilities, not renormalised: the score of a sequence
is then exactly the mean of the scores that the models give it alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from components.models.t5.model import DecoderState, T5Seq2Seq

# Finished examples leave the batch when at most this share is left: copying the caches costs about one step.
SHRINK_BELOW = 0.75
NEVER = -1e9


@dataclass(frozen=True)
class Generated:
    """sequences (B, T): token ids with the end token, without the start token, padded; scores (B,): mean log-prob.

    The mean is over the tokens of `sequences`, the end token included, whatever length penalty ranked them.
    """

    sequences: Tensor
    scores: Tensor


class _Ensemble:
    """Several models that write the same rows."""

    def __init__(
        self,
        models: Sequence[T5Seq2Seq],
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        max_length: int,
        num_beams: int,
        allowed_ids: Tensor | None,
    ) -> None:
        self.models = models
        # Sorted, so that the lowest id wins a tie among allowed ones as well
        self.allowed_ids = None if allowed_ids is None else torch.unique(allowed_ids.to(input_ids.device))
        self.num_choices = models[0].architecture.vocab_size if self.allowed_ids is None else len(self.allowed_ids)
        self.states: list[DecoderState] = [
            model.start_decoding(
                input_ids, attention_mask, max_length=max_length, num_beams=num_beams, allowed_ids=self.allowed_ids
            )
            for model in models
        ]

    def token_ids(self, choices: Tensor) -> Tensor:
        """The ids of positions among the choices of `step`."""
        return choices if self.allowed_ids is None else self.allowed_ids[choices]

    def step(self, tokens: Tensor) -> Tensor:
        """Log-probabilities (R, V or the allowed ids) of what follows `tokens` (R,), float64 only of such models."""
        total: Tensor | None = None
        for model, state in zip(self.models, self.states, strict=True):
            logits = model.decode_step(tokens, state)
            log_probs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
            total = log_probs if total is None else total.add_(log_probs)
        assert total is not None
        return total if len(self.models) == 1 else total.div_(len(self.models))

    def select(self, rows: Tensor, examples: Tensor | None = None) -> None:
        for state in self.states:
            state.select(rows, examples)


@torch.no_grad()
def generate(
    models: Sequence[T5Seq2Seq],
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    max_length: int,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    allowed_ids: Tensor | None = None,
) -> Generated:
    """Decode input_ids (B, S) into at most `max_length` tokens each, the end token counted.

    `num_beams` 1 is greedy (the lowest id wins a tie). Otherwise beam search that ends an example as soon as
    `num_beams` of its hypotheses are finished (transformers' `early_stopping=True`) and returns the best by
    sum of log-probabilities / length ** `length_penalty`; a tie goes to the better-ranked beam, then the lower id.
    With `allowed_ids` (A,) nothing else is written: the other pieces have no probability, and the head computes A
    logits instead of V. Models run in evaluation mode and are put back as they were. Raises ValueError for models of
    different vocabularies or special tokens, and for allowed ids outside the vocabulary or without the end token.
    """
    _check(models, max_length, num_beams, allowed_ids)
    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        ensemble = _Ensemble(
            models,
            input_ids,
            attention_mask,
            max_length=max_length,
            num_beams=num_beams,
            allowed_ids=allowed_ids,
        )
        if num_beams == 1:
            return _greedy(ensemble, input_ids, max_length)
        return _BeamSearch(ensemble, input_ids, max_length, num_beams, length_penalty).run()
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def _check(models: Sequence[T5Seq2Seq], max_length: int, num_beams: int, allowed_ids: Tensor | None) -> None:
    if not models:
        raise ValueError("models: at least one is needed to generate")
    if max_length < 1 or num_beams < 1:
        raise ValueError(f"max_length and num_beams: must be at least 1, not {max_length} and {num_beams}")
    first = models[0].architecture
    for name in ("vocab_size", "pad_token_id", "eos_token_id", "decoder_start_token_id"):
        values = [getattr(model.architecture, name) for model in models]
        if len(set(values)) > 1:
            raise ValueError(f"models: their {name} differ ({values}); an ensemble must share one vocabulary")
    choices = first.vocab_size
    if allowed_ids is not None:
        known = set(allowed_ids.tolist())
        choices = len(known)
        if first.eos_token_id not in known or not all(0 <= token < first.vocab_size for token in known):
            raise ValueError(
                f"allowed_ids: must lie in 0..{first.vocab_size - 1} and hold the end token {first.eos_token_id}"
            )
    if 2 * num_beams > choices:
        raise ValueError(f"num_beams: {num_beams} needs a vocabulary of twice as many, not {choices}")


def _greedy(ensemble: _Ensemble, input_ids: Tensor, max_length: int) -> Generated:
    architecture = ensemble.models[0].architecture
    batch = len(input_ids)
    sequences = input_ids.new_full((batch, max_length), architecture.pad_token_id)
    active = torch.arange(batch, device=input_ids.device)  # example of each row still in the batch
    tokens = input_ids.new_full((batch,), architecture.decoder_start_token_id)
    unfinished = torch.ones(batch, dtype=torch.bool, device=input_ids.device)
    totals = lengths = input_ids.new_zeros(batch)
    for step in range(max_length):
        log_probs = ensemble.step(tokens)
        choices = log_probs.argmax(-1)  # the first of equal values
        best = log_probs.gather(1, choices[:, None]).squeeze(1)
        tokens = ensemble.token_ids(choices)
        if step == 0:
            totals = torch.zeros(batch, dtype=best.dtype, device=best.device)
        running = unfinished.index_select(0, active)
        tokens = tokens.masked_fill(~running, architecture.pad_token_id)
        sequences[active, step] = tokens
        totals = totals.index_add(0, active, best * running)
        lengths = lengths.index_add(0, active, running.to(lengths.dtype))
        still = running & (tokens != architecture.eos_token_id)
        unfinished[active] = still
        remaining = int(still.sum())
        if remaining == 0:
            sequences = sequences[:, : step + 1]
            break
        if remaining <= SHRINK_BELOW * len(active):
            rows = still.nonzero().squeeze(1)
            ensemble.select(rows, rows)
            active, tokens = active.index_select(0, rows), tokens.index_select(0, rows)
    return Generated(sequences, totals / lengths)


class _BeamSearch:
    """State of one beam search: E examples still open, K beams each, and the K best finished hypotheses of all B."""

    def __init__(
        self, ensemble: _Ensemble, input_ids: Tensor, max_length: int, num_beams: int, length_penalty: float
    ) -> None:
        self.ensemble, self.max_length = ensemble, max_length
        self.num_beams, self.length_penalty = num_beams, length_penalty
        self.architecture = ensemble.models[0].architecture
        batch, self.device = len(input_ids), input_ids.device
        self.open = torch.arange(batch, device=self.device)  # (E,) example of each group of beams
        self.written = input_ids.new_full((batch, num_beams, max_length), self.architecture.pad_token_id)
        self.totals = torch.full((batch, num_beams), NEVER, dtype=torch.float32, device=self.device)
        # All beams start equal: only the first may be continued
        self.totals[:, 0] = 0.0
        self.tokens = input_ids.new_full((batch * num_beams,), self.architecture.decoder_start_token_id)
        # Finished hypotheses, best first: (B, K, T), ranks (B, K), sums (B, K), lengths (B, K)
        self.finished = self.written.clone()
        self.ranks = torch.full_like(self.totals, NEVER)
        self.sums = torch.zeros_like(self.totals)
        self.lengths = torch.ones_like(self.totals)

    def run(self) -> Generated:
        for length in range(1, self.max_length + 1):
            self._advance(length)
            if length == self.max_length or not self._close_full(length):
                break
        longest = int(self.lengths[:, 0].max())
        return Generated(self.finished[:, 0, :longest], self.sums[:, 0] / self.lengths[:, 0])

    def _advance(self, length: int) -> None:
        """Write one token: of the 2K best continuations, ended ones among the first K finish and K others go on."""
        beams, width = self.num_beams, self.ensemble.num_choices
        log_probs = self.ensemble.step(self.tokens)  # (E * K, V)
        candidates = (log_probs.view(-1, beams, width) + self.totals[:, :, None]).flatten(1)  # (E, K * V)
        totals, index = _top(candidates, 2 * beams)  # (E, 2K)
        origin, token = index // width, self.ensemble.token_ids(index % width)
        written = self.written.gather(1, origin[:, :, None].expand(-1, -1, self.max_length))  # (E, 2K, T)
        written[:, :, length - 1] = token
        ended = token == self.architecture.eos_token_id
        if length == self.max_length:
            ended = torch.ones_like(ended)
        self._record(totals[:, :beams], written[:, :beams], ended[:, :beams], length)
        # Stable, so that those that go on keep their order
        chosen = ended.long().argsort(dim=1, stable=True)[:, :beams]  # (E, K)
        self.totals = totals.gather(1, chosen).masked_fill(ended.gather(1, chosen), NEVER)
        self.written = written.gather(1, chosen[:, :, None].expand(-1, -1, self.max_length))
        self.tokens = token.gather(1, chosen).flatten()
        offset = torch.arange(len(self.open), device=self.device)[:, None] * beams
        self.rows = (origin.gather(1, chosen) + offset).flatten()  # (E * K,)

    def _record(self, totals: Tensor, written: Tensor, ended: Tensor, length: int) -> None:
        """Merge the hypotheses `ended` (E, K) into the K best finished ones of their examples."""
        rank = (totals / length**self.length_penalty).masked_fill(~ended, NEVER)
        ranks, order = _top(torch.cat([self.ranks[self.open], rank], 1), self.num_beams)
        self.ranks[self.open] = ranks
        self.sums[self.open] = torch.cat([self.sums[self.open], totals], 1).gather(1, order)
        lengths = torch.cat([self.lengths[self.open], torch.full_like(totals, length)], 1)
        self.lengths[self.open] = lengths.gather(1, order)
        sequences = torch.cat([self.finished[self.open], written], 1)
        self.finished[self.open] = sequences.gather(1, order[:, :, None].expand(-1, -1, self.max_length))

    def _close_full(self, length: int) -> bool:
        """Reorder the caches; drop examples that have K finished hypotheses. False when none is left."""
        going = (self.ranks[self.open] <= NEVER / 2).any(1)  # (E,)
        kept = going.nonzero().squeeze(1)
        if len(kept) == 0:
            return False
        if len(kept) == len(going):
            self.ensemble.select(self.rows)
            return True
        self.open, self.totals, self.written = self.open[kept], self.totals[kept], self.written[kept]
        self.tokens = self.tokens.view(-1, self.num_beams)[kept].flatten()
        self.rows = self.rows.view(-1, self.num_beams)[kept].flatten()
        self.ensemble.select(self.rows, kept)
        return True


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row, in falling order and by rising index where they are equal."""
    top, index = values.topk(count, dim=1)
    by_index = index.argsort(1)
    top, index = top.gather(1, by_index), index.gather(1, by_index)
    order = top.argsort(dim=1, descending=True, stable=True)
    return top.gather(1, order), index.gather(1, order)
