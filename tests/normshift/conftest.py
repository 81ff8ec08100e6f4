import pytest
import torch

from normshift.backends import compiled, reference


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=["torch", "compiled"])
def backend(request, monkeypatch):
    """Runs a test with plain torch and with the compiled kernels, also for the layers."""
    if request.param == "torch":
        monkeypatch.setenv("NORMSHIFT_KERNELS", "torch")
        return reference
    monkeypatch.delenv("NORMSHIFT_KERNELS", raising=False)
    if not compiled.load():
        pytest.skip("the compiled kernels cannot be built here")
    return compiled
