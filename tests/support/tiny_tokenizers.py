"""Small tokenizers shaped like PaliGemma's: a SentencePiece model, and its equal in JSON."""

import io
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

USER_DEFINED = ("\n", "<loc0000>")


def train_sentencepiece(path: Path, **settings: Any) -> Path:
    """Write a BPE model with Gemma's settings, or with others that ``settings`` name."""
    nouns = ("left drawer", "right drawer", "bell pepper", "kitchen  cabinet", "sink faucet")
    sentences = [
        f"Task: open the {noun}, State: {value} {value * 7 % 256} -1 255;\nAction: "
        for noun in nouns
        for value in range(256)
    ]
    written = io.BytesIO()
    gemma = {
        "model_type": "bpe",
        "vocab_size": 420,
        "hard_vocab_limit": False,
        "byte_fallback": True,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
        "user_defined_symbols": list(USER_DEFINED),
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
        "pad_piece": "<pad>",
        "eos_piece": "<eos>",
        "bos_piece": "<bos>",
        "unk_piece": "<unk>",
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=written, **(gemma | settings)
    )
    path.write_bytes(written.getvalue())
    return path


def as_tokenizer_json(model: Path) -> Path:
    """Write the tokenizer of a SentencePiece BPE model as ``*.json`` beside it."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    count = pieces.get_piece_size()
    names = [pieces.id_to_piece(i) for i in range(count)]
    ids = {name: i for i, name in enumerate(names)}
    control = [i for i in range(count) if pieces.is_control(i) or pieces.is_unknown(i)]
    merges = []
    for i, name in enumerate(names):
        if i in control or pieces.is_byte(i) or name in USER_DEFINED:
            continue
        splits = [(name[:cut], name[cut:]) for cut in range(1, len(name))]
        merges += [(pieces.get_score(i), pair) for pair in splits if set(pair) <= ids.keys()]
    merges.sort(key=lambda merge: -merge[0])
    bpe = BPE(
        vocab=ids,
        merges=[pair for _, pair in merges],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    tokenizer.add_special_tokens([AddedToken(names[i], normalized=False) for i in control])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in USER_DEFINED])
    path = model.with_suffix(".json")
    tokenizer.save(str(path))
    return path
