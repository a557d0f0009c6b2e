"""Bands of arrays whose stages lie on eight devices: what the programs send, and that one device gives the same."""

import pytest
from collectives import Collective, collectives
from sharded_extraction import DEVICES, cases, small_cases
from sharded_process import run

HALO = 102  # numbers: what two neighbours of a stage of three are, with 17 probes; a device has 384 at least


@pytest.fixture(scope="module")
def both() -> dict:
    return run("sharded_extraction.py", DEVICES)


@pytest.fixture(scope="module")
def measured(both: dict) -> dict:
    return both["large"]


@pytest.mark.parametrize("name", cases())
def test_devices_send_each_other_halos_alone(measured: dict, name: str) -> None:
    sent = [Collective(*each) for each in measured[name]["sent"]]
    assert any(each.kind == "collective-permute" for each in sent), "the stages are not split at all"
    assert {each.kind for each in sent} <= {"collective-permute", "all-reduce"}
    assert max(each.numbers for each in sent) <= HALO


@pytest.mark.parametrize("name", cases())
def test_no_device_forms_what_grows_with_all_stages(measured: dict, name: str) -> None:
    several, one = measured[name]["memory"]
    assert several <= one / 2 + 1024


@pytest.mark.parametrize("name", cases())
def test_the_band_is_split_as_its_stages(measured: dict, name: str) -> None:
    case = measured[name]
    for parts, (rows, n) in zip(case["parts"], case["shapes"], strict=True):
        assert parts == [[rows, n // DEVICES]] * DEVICES


@pytest.mark.parametrize("name", cases())
def test_one_device_gives_the_same_band(measured: dict, name: str) -> None:
    assert measured[name]["error"] <= 1e-14


@pytest.mark.parametrize("name", small_cases())
def test_so_it_does_where_a_device_has_two_stages(both: dict, name: str) -> None:
    """There bands reach beyond a neighbour, and what is sent is small, whichever way."""
    case = both["small"][name]
    assert case["error"] <= 1e-14
    for parts, (rows, n) in zip(case["parts"], case["shapes"], strict=True):
        assert parts == [[rows, n // DEVICES]] * DEVICES


def test_collectives_are_read_off_a_program() -> None:
    text = """
    %a = f64[2,4104]{0,1} all-gather(%b), channel_id=3, metadata={op_name="f64[9999]"}
    %c = (f64[1]{0}, f32[7]{0}) all-reduce(%d, %e), to_apply=%add
    %f = f64[8,512]{1,0} fusion(%a), kind=kLoop
    """
    assert collectives(text) == [Collective("all-gather", 8208, 65664), Collective("all-reduce", 7, 36)]
