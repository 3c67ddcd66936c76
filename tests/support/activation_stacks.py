"""Small stacks of layers for the tests of activation plans: an encoder of transformers, and layers that count calls."""

import torch
from torch import nn
from transformers import BertConfig, BertModel


def build_bert():
    """An encoder of 4 layers whose attention runs in one kernel, and a function from it to a loss."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = BertConfig(vocab_size=100, **sizes, attention_probs_dropout_prob=0.0, attn_implementation="sdpa")
    model = BertModel(config, add_pooling_layer=False).train()
    input_ids, probe = torch.randint(1, 100, (4, 40)), torch.randn(64)
    mask = torch.arange(40) < torch.tensor([40, 30, 20, 10])[:, None]

    def loss(model):
        return (model(input_ids=input_ids, attention_mask=mask).last_hidden_state @ probe).square().mean()

    return model, [model.encoder.layer], loss


class Residual(nn.Module):
    """A layer with dropout that normalises over the batch."""

    def __init__(self, width=64):
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(0.2)

    def forward(self, hidden, scale=1.0):
        return hidden + scale * self.dropout(self.narrow(nn.functional.gelu(self.wide(self.norm(hidden)))))


class Counting(Residual):
    num_calls = 0

    def forward(self, hidden, scale=1.0):
        self.num_calls += 1
        return super().forward(hidden, scale)


class Stack(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layers = nn.ModuleList(layer() for _ in range(4))
        self.scales = [1.0] * 4

    def forward(self, hidden):
        for layer, scale in zip(self.layers, self.scales, strict=True):
            hidden = layer(hidden, scale)
        return hidden


def build_stack(layer=Counting):
    torch.manual_seed(0)
    return Stack(layer).train(), lambda model: model(torch.linspace(-1, 1, 96 * 64).view(96, 64)).square().sum()
