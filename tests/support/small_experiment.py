"""An experiment of seven lines, for the tests of configuration."""

BASE = """\
name: base
competition: letters
model: {name: t5_from_scratch, d_model: 32}
data: {name: text, max_source_length: 16}
optimizer: {name: adafactor, lr: 3e-2, scale_parameter: true}
schedule: {name: cosine, num_warmup_steps: 10}
training: {num_steps: 100}
"""
