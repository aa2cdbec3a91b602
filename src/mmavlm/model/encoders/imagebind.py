"""ImageBind's audio tower, from a user's own file: one embedding a clip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.model.encoders.mel import ImageBindMel
from mmavlm.model.encoders.sound import FrozenSoundEncoder
from mmavlm.weights.pretrained import as_dtype, raise_if_different, unpickled

RATE_HZ, CLIP_S, MELS, FRAMES, PATCH, STRIDE = 16_000, 2.0, 128, 204, 16, 10
LICENCE = "CC BY-NC-SA 4.0, which excludes commercial use"
_OF_AUDIO = re.compile(r"modality_(preprocessor|trunk|head|postprocessor)s\.audio\.")
# The published tower multiplies its embeddings by this; Video-LLaMA was trained on length 1.
_SCALE = "modality_postprocessors.audio.1.log_logit_scale"


class _Block(nn.Module):
    """A pre-norm block whose keys and values have one more entry, a learned bias."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=True, batch_first=True)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N,L,D) → the same shape."""
        inputs = self.norm_1(tokens)
        tokens = tokens + self.attn(inputs, inputs, inputs, need_weights=False)[0]
        hidden = F.gelu(self.mlp["fc1"](self.norm_2(tokens)))
        return tokens + self.mlp["fc2"](hidden)


class _Tower(nn.Module):
    """A ViT over a spectrogram, of which the class token is given."""

    def __init__(self, width: int, hidden: int, output: int, *, blocks: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, PATCH, STRIDE, bias=False)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + _patches(MELS) * _patches(FRAMES), width))
        self.blocks = nn.ModuleList(_Block(width, heads, hidden) for _ in range(blocks))
        self.head_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, output, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features (N,1,128,204) → embeddings (N,Da) of length 1."""
        patches = self.norm(self.patches(pictures).flatten(2).transpose(1, 2))
        tokens = torch.cat([self.first.expand(len(patches), -1, -1), patches], dim=1)
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return F.normalize(self.head(self.head_norm(tokens[:, 0])), dim=-1)


_NAMES = {
    "first": "modality_preprocessors.audio.cls_token",
    "positions": "modality_preprocessors.audio.pos_embedding_helper.pos_embed",
    "patches.": "modality_preprocessors.audio.rgbt_stem.proj.",
    "norm.": "modality_preprocessors.audio.rgbt_stem.norm_layer.",
    "blocks.": "modality_trunks.audio.blocks.",
    "head_norm.": "modality_heads.audio.0.",
    "head.": "modality_heads.audio.2.",
}
# Whose first axes are the tower's width, that of its feed-forward, and that of its embeddings.
_SIZED = (
    "modality_heads.audio.0.weight",
    "modality_trunks.audio.blocks.0.mlp.fc1.weight",
    "modality_heads.audio.2.weight",
)
_BLOCK = re.compile(r"modality_trunks\.audio\.blocks\.(\d+)\.")


class ImageBindSoundEncoder(FrozenSoundEncoder):
    """ImageBind's embedding of a clip of 2 s: one token (Girdhar et al., CVPR 2023).

    `weights` is `imagebind_huge.pth`, of which the audio tower alone is read. Embeddings have
    length 1, as Video-LLaMA's audio branch was trained on them; the tower's factor of 20 is not
    applied. The number of `heads` stands in no file.

    Raises:
        ConfigError: if no file is named, clips are not of 2 s, or the width is no multiple of
            `heads`.
        CheckpointError: if the file is missing or damaged, or its names or shapes do not fit.
    """

    def __init__(
        self,
        weights: str | None,
        *,
        clip_s: float = CLIP_S,
        heads: int = 12,
        dtype: str = "float32",
        chunk_size: int = 64,
        compile_backend: str | None = None,
    ) -> None:
        weights_dtype = as_dtype(dtype, "sound_encoder.dtype")
        if weights is None:
            raise ConfigError(
                "sound_encoder.weights is null; name ImageBind's imagebind_huge.pth, which you "
                f"have to fetch yourself: its licence is {LICENCE}"
            )
        if clip_s != CLIP_S:
            raise ConfigError(f"sound_encoder.clip_s is {clip_s:g}; ImageBind hears {CLIP_S:g} s")
        tower = _tower(Path(weights), heads, weights_dtype)
        super().__init__(
            rate_hz=RATE_HZ,
            clip_s=clip_s,
            features=ImageBindMel(RATE_HZ, MELS, FRAMES),
            num_tokens=1,
            width=tower.head.out_features,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.heads = heads
        self.tower = tower
        self.freeze()

    def tokens(self, inputs: Tensor) -> Tensor:
        """Features (N,frames,mels) → embeddings (N,1,Da) of length 1."""
        return self.tower(inputs.transpose(1, 2)[:, None])[:, None]

    def transform(self) -> tuple[str, dict[str, Tensor]]:
        """That of all audio encoders, and the number of heads."""
        settings, tensors = super().transform()
        return f"{settings} heads={self.heads}", tensors


def _patches(size: int) -> int:
    return (size - PATCH) // STRIDE + 1


def _tower(path: Path, heads: int, dtype: torch.dtype) -> _Tower:
    """The tower as large as the file says, with its weights."""
    if not path.is_file():
        raise CheckpointError(
            f"sound_encoder.weights={path} does not exist; give ImageBind's imagebind_huge.pth "
            f"(licence {LICENCE})"
        )
    state = {name: tensor for name, tensor in unpickled(path).items() if _OF_AUDIO.match(name)}
    state.pop(_SCALE, None)
    sizes = [_size(state, name, path) for name in _SIZED]
    width = sizes[0]
    if heads < 1 or width % heads:
        raise ConfigError(f"sound_encoder.heads is {heads}; give a divisor of the width {width}")
    blocks = 1 + max(int(found[1]) for name in state if (found := _BLOCK.match(name)))
    with torch.device("meta"):
        tower = _Tower(*sizes, blocks=blocks, heads=heads)
    wanted = {_their_name(name): (name, t.shape) for name, t in tower.state_dict().items()}
    raise_if_different(
        "ImageBind's audio tower",
        str(path),
        missing=[name for name in wanted if name not in state],
        unexpected=[name for name in state if name not in wanted],
        misshaped=[
            f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
            for name, (_, shape) in wanted.items()
            if name in state and state[name].shape != shape
        ],
    )
    ours = {wanted[name][0]: tensor.to(dtype) for name, tensor in state.items()}
    tower.load_state_dict(ours, strict=True, assign=True)
    return tower


def _size(state: Mapping[str, Tensor], name: str, path: Path) -> int:
    """The first axis of a tensor that says how large the tower is."""
    if name not in state or state[name].ndim == 0:
        raise_if_different("ImageBind's audio tower", str(path), missing=[name])
    return len(state[name])


def _their_name(name: str) -> str:
    """The name in the file of a tensor of the tower."""
    start = next(ours for ours in _NAMES if name.startswith(ours))
    return _NAMES[start] + name.removeprefix(start)
