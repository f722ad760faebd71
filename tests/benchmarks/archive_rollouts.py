"""Rollouts for the archive's benchmark: nothing in them repeats but what repeats in a real thread.

`text`: commands with outputs of words, paths and numbers, each output twice (for the people who look at
the thread and for the model), and reasoning that is encrypted, so base64. `zstd -3` keeps about a quarter of
such a file, as it does of real threads. `images`: screenshots in base64 as well, each in two records, and a
compaction every few turns whose replacement history repeats the newest of them on a line of tens of megabytes:
as in threads of whose bytes nine tenths are compactions (openai/codex#24948, #37346).
"""

from __future__ import annotations

import base64
import random
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from preflight.codex.sample_records import STARTED, sample_uuid
from preflight.codex.sample_rollout import RolloutWriter

__all__ = ["KINDS", "write_growing"]

_OUTPUT_BYTES = (400, 900, 12_000, 700, 5_000, 1_800, 45_000, 350, 3_000, 20_000)
_LARGE_OUTPUT, _LARGE_EVERY = 1_500_000, 1_000
_REASONING_BYTES = 4_000
_IMAGE_BYTES = (250_000, 2_500_000)
_KEPT_IMAGES = 12
_TURNS_A_COMPACTION = 3


def write_growing(path: Path, longer: Path, kind: str, size: int, added: int) -> None:
    """Write one thread to `longer`, at least `size` + `added` bytes; `path` has what it was `added` bytes before.

    Both end with a line. The same bytes on every machine.
    """
    thread_id = sample_uuid(int(STARTED.timestamp() * 1000), kind)
    with RolloutWriter(longer, thread_id) as writer:
        turn = KINDS[kind](writer, random.Random(thread_id))
        while writer.size_bytes < size:
            turn()
        before = writer.size_bytes
        while writer.size_bytes < before + added:
            turn()
    with longer.open("rb") as whole, path.open("xb") as first:
        while left := before - whole.tell():
            first.write(whole.read(min(left, 1 << 20)))


def _text(writer: RolloutWriter, chance: random.Random) -> Callable[[], None]:
    words = _words(chance)

    def turn() -> None:
        turn_id = writer.goal_turn("Make every test of the sample pass.")
        large = [_LARGE_OUTPUT] if chance.randrange(_LARGE_EVERY) == 0 else []
        for size in (*_OUTPUT_BYTES, *large):
            call_id = f"call_{chance.getrandbits(96):024x}"
            writer.record("response_item", _reasoning(chance))
            output = _output(chance, words, size)
            writer.event("exec_command_end", call_id=call_id, turn_id=turn_id, aggregated_output=output, exit_code=0)
            writer.record("response_item", {"type": "function_call_output", "call_id": call_id, "output": output})

    return turn


def _images(writer: RolloutWriter, chance: random.Random) -> Callable[[], None]:
    text = _text(writer, chance)
    kept: deque[Mapping[str, object]] = deque(maxlen=_KEPT_IMAGES)
    turns = 0

    def turn() -> None:
        nonlocal turns
        text()
        image = "data:image/png;base64," + _base64(chance, chance.randint(*_IMAGE_BYTES))
        content = [{"type": "input_text", "text": "Look."}, {"type": "input_image", "image_url": image}]
        kept.append({"type": "message", "role": "user", "content": content})
        writer.record("response_item", kept[-1])
        writer.event("user_message", message="Look.", images=[image], local_images=[], text_elements=[])
        turns += 1
        if turns % _TURNS_A_COMPACTION == 0:
            writer.record("compacted", {"message": f"Part {turns} is done.", "replacement_history": list(kept)})

    return turn


KINDS: Mapping[str, Callable[[RolloutWriter, random.Random], Callable[[], None]]] = {"text": _text, "images": _images}


def _words(chance: random.Random) -> list[str]:
    """256 of them, one for each byte: some are frequent, as in any language."""
    letters = "eeeetttaaaooiinnsshhrrddllccuummwwffggyyppbbvvkk_./"
    rare = ["".join(chance.choices(letters, k=chance.randint(3, 11))) for _ in range(160)]
    return [*rare, *(rare[number % 24] for number in range(96))]


def _output(chance: random.Random, words: list[str], size: int) -> str:
    """Lines of words with a number in each: about `size` bytes."""
    lines = []
    made = 0
    while made < size:
        line = " ".join(map(words.__getitem__, chance.randbytes(chance.randint(4, 18))))
        lines.append(f"{made:>7} {chance.getrandbits(24):06x} {line}")
        made += len(lines[-1]) + 1
    return "\n".join(lines)


def _reasoning(chance: random.Random) -> Mapping[str, object]:
    return {"type": "reasoning", "summary": [], "encrypted_content": _base64(chance, _REASONING_BYTES)}


def _base64(chance: random.Random, length: int) -> str:
    return base64.b64encode(chance.randbytes(length * 3 // 4)).decode()
