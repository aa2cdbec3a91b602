"""What devices can do at most: the operations a second that their makers state, without sparsity.

From the makers' data sheets, for dense products: in single precision, in TF32, and in 16 bit.
"""

from __future__ import annotations

import torch

# A part of the device's name → operations a second: single precision, TF32, 16 bit. Of a name that
# holds several, the first counts.
PEAKS = {
    "B200": (75e12, 1100e12, 2250e12),
    "H200": (67e12, 494e12, 989e12),
    "GH200": (67e12, 494e12, 989e12),
    "H100 PCIe": (51e12, 378e12, 756e12),
    "H100 NVL": (60e12, 417e12, 835e12),
    "H100": (67e12, 494e12, 989e12),
    "A100": (19.5e12, 156e12, 312e12),
    "L40S": (91.6e12, 183e12, 362e12),
    "A10G": (35e12, 35e12, 70e12),
    "A10": (31.2e12, 62.5e12, 125e12),
    "L4": (30.3e12, 60e12, 121e12),
    "V100": (15.7e12, 15.7e12, 125e12),
    "T4": (8.1e12, 8.1e12, 65e12),
    "RTX 4090": (82.6e12, 82.6e12, 165e12),
    "RTX 3090": (35.6e12, 35.6e12, 71e12),
}
SINGLE, TF32, HALF = range(3)


def peak_of(device: torch.device, precision: str) -> float | None:
    """Operations a second of a device at a trainer's precision; None where they are not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = next((peaks for part, peaks in PEAKS.items() if part in name), None)
    return None if known is None else known[column(precision)]


def column(precision: str) -> int:
    """Which of the three a trainer's precision is, such as bf16-mixed or 32-true."""
    if "16" in precision:
        return HALF
    return SINGLE if torch.get_float32_matmul_precision() == "highest" else TF32
