"""Products of narrow values: exact whatever units form them, and nothing else is narrowed."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from matrices import dense, empty
from merging import make_merge
from regstream.device.matmul_precision import MatmulPrecision, default_precision, float32_products
from regstream.device.workspace import Workspace
from regstream.linalg.gram import Gram
from simulated_device import NAME, Simulated, simulated_device

NARROW = MatmulPrecision(torch.float32, torch.bfloat16)


@pytest.fixture(params=["cpu", NAME, pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    with simulated_device() if request.param == NAME else nullcontext():
        yield torch.device(str(request.param))


def whole_numbers(num_tokens: int, in_features: int) -> Tensor:
    """Of up to eight significant bits, as bfloat16 has; sums of so few products are exact in float32."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-255, 256, (num_tokens, in_features), generator=generator).float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("num_tokens", [40, 200])  # kept as they are, and multiplied at once
def test_gram_matrices_of_whole_numbers_are_exact(device: torch.device, dtype: torch.dtype, num_tokens: int) -> None:
    x_TI = whole_numbers(num_tokens, 96).to(device, dtype)
    gram = Gram(empty(96, torch.float32, device), Workspace(device))
    gram.reset(num_tokens)
    for part_TI in torch.split(x_TI, 33):
        gram.add(part_TI)
    total = empty(96, torch.float32, device)
    gram.add_to(total, 1.0)
    expected_II = x_TI.cpu().double().T @ x_TI.cpu().double()
    assert torch.equal(dense(total).cpu().double(), expected_II)
    torch.testing.assert_close(gram.diagonal().cpu().double(), expected_II.diagonal(), rtol=1e-6, atol=0)
    into_NI = torch.ones(5, 96).to(device)
    gram.multiply(torch.eye(5, 96).to(device), into_NI, -1.0)
    assert torch.equal(into_NI.cpu().double(), 1 - expected_II[:5])


def test_values_of_the_full_width_are_not_narrowed(device: torch.device) -> None:
    x_TI = torch.randn(512, 256, generator=torch.Generator().manual_seed(0)).to(device)
    exact_II = x_TI.double().T @ x_TI.double()
    with default_precision(torch.float32).exact_fast_matmul(device):
        product_II = x_TI.T @ x_TI
    assert (product_II - exact_II).abs().max() < 1e-3
    gram = Gram(empty(256, torch.float32, device), Workspace(device))
    gram.reset(512)
    gram.add(x_TI)
    assert (gram.diagonal().cpu() - exact_II.cpu().diagonal()).abs().max() < 1e-3


def test_what_was_set_is_set_again() -> None:
    backends: Any = torch.backends  # untyped
    device, backend = torch.device("cpu"), backends.mkldnn.matmul
    before = backend.fp32_precision
    with NARROW.exact_fast_matmul(device):
        assert backend.fp32_precision != before
    with pytest.raises(KeyError), NARROW.exact_fast_matmul(device):
        raise KeyError
    assert backend.fp32_precision == before
    with MatmulPrecision(torch.float64, torch.bfloat16).exact_fast_matmul(device):
        assert backend.fp32_precision == before


def cuda_settings() -> dict[str, object]:
    """How torch forms products on CUDA, as it tells on any machine, by its older names and its newer ones."""
    backends: Any = torch.backends  # untyped
    return {
        "matmul": backends.cuda.matmul.fp32_precision,
        "convolution": backends.cudnn.conv.fp32_precision,
        "matmul, TF32": backends.cuda.matmul.allow_tf32,
        "cuDNN, TF32": backends.cudnn.allow_tf32,
        "bfloat16": backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "float16": backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
    }


@pytest.fixture(params=["as torch comes", "TF32"])
def tf32(request: pytest.FixtureRequest) -> Iterator[None]:
    """TF32 for convolutions alone, or for all products."""
    backends: Any = torch.backends  # untyped
    before = backends.cuda.matmul.fp32_precision
    if request.param == "TF32":
        backends.cuda.matmul.allow_tf32 = True
    yield
    backends.cuda.matmul.allow_tf32 = False
    backends.cuda.matmul.fp32_precision = before


@pytest.mark.usefixtures("tf32")
def test_a_run_on_cuda_keeps_the_digits_of_float32_and_leaves_settings_as_they_were() -> None:
    before, device = cuda_settings(), torch.device("cuda")
    with float32_products(device):
        inside = cuda_settings()
    assert not any(value in ("tf32", True) for value in inside.values())
    assert cuda_settings() == before
    with pytest.raises(KeyError), float32_products(device):
        raise KeyError
    assert cuda_settings() == before


def test_a_run_forms_all_products_of_a_device_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = list[bool]()

    @contextmanager
    def float32_products() -> Iterator[None]:
        entered.append(True)
        yield
        entered[-1] = False

    with simulated_device() as counts:
        monkeypatch.setattr(Simulated, "float32_products", float32_products)
        resources = f'device = "{NAME}"\ncompute_dtype = "bfloat16"'
        make_merge(tmp_path, num_rows=2, merge={"method": "regmean"}, resources=resources).run()
        assert counts.num_narrow_products > 0
    assert entered
    assert not any(entered)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_tokens", [100, 4000])  # stored, and multiplied at once
def test_a_device_takes_narrow_tokens_as_they_are_and_is_not_waited_for(dtype: torch.dtype, num_tokens: int) -> None:
    with simulated_device() as counts:
        device = torch.device(NAME)
        x_TI = torch.randn(num_tokens, 256, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        gram = Gram(empty(256, torch.float32, device), Workspace(device))
        total = empty(256, torch.float32, device)
        gram.reset(num_tokens)
        held, waits, sent = counts.held_bytes, counts.num_waits, counts.sent_bytes
        counts.peak_bytes = held
        for part_TI in torch.split(x_TI, 1000):
            gram.add(part_TI)
        gram.add_to(total, 0.5)
        # Stored tokens are a copy, in their own dtype, with gaps between rows; of others there is none.
        stored = x_TI.nbytes * 1.1 if gram.stores else 0
        assert counts.peak_bytes - held <= stored
        assert (counts.num_waits, counts.sent_bytes) == (waits, sent)
        assert counts.num_narrow_products > 0
        exact_II = x_TI.cpu().double().T @ x_TI.cpu().double()
        torch.testing.assert_close(dense(total).cpu().double(), 0.5 * exact_II, rtol=1e-5, atol=1e-2)
