"""How tools train: products in bfloat16 where the processor multiplies it faster; on AVX2 it is 200 times slower."""

import torch

from regstream.device.product_rate import product_rate


def mixed_precision() -> torch.autocast:
    """Within the context, products are in bfloat16 where that is faster than float32; parameters keep their dtype."""
    cpu = torch.device("cpu")
    is_faster = product_rate(torch.bfloat16, cpu) > product_rate(torch.float32, cpu)
    # With its cache, autocast would keep its first copies of what is tuned.
    return torch.autocast("cpu", torch.bfloat16, enabled=is_faster, cache_enabled=False)
