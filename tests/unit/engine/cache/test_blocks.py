"""Memory: stored once, grown rarely, shared until written, given back, and never half changed."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import ALIGNMENT
from hogwild_agents.engine.rotary import Rotation
from hogwild_agents.errors import InvalidBlockError, ModelLoadError, OutOfCacheMemoryError
from tests.unit.engine.cache.pools import check_contents, make_pool, pages_of, write
from tests.unit.engine.families import ACCEPTED, build
from tests.unit.engine.reference import LLAMA, block_of, contents, some_tokens, unchanged


@pytest.fixture
def small() -> Callable[[int], SharedCacheModel]:
    """A tiny Llama whose cache has room for so many pages and not a byte more."""

    def load(pages: int) -> SharedCacheModel:
        token = 4 * 2 * 2 * (16 + 16)  # float32, layers, kv_heads, key and value
        model = SharedCacheModel.from_pretrained(
            build(LLAMA), cache_bytes=pages * PAGE * token, self_check=False
        )
        assert model.pool.limit_pages == pages
        assert model.pool.bytes_per_token == token
        return model

    return load


class TestUse:
    """How many pages what is stored takes."""

    def test_a_block_is_stored_once_however_many_see_it(self) -> None:
        model = SharedCacheModel.from_pretrained(build(LLAMA))
        assert model.pool.used_bytes == 0
        prompt = block_of(model, some_tokens(5 * PAGE))
        page = PAGE * model.pool.bytes_per_token
        assert model.pool.used_bytes == 5 * page
        own = [model.new_block() for _ in range(7)]
        views = [[prompt, *own[:index], *own[index + 1 :], own[index]] for index in range(7)]
        model.forward(views, [[index] for index in range(7)])
        assert model.pool.used_bytes == (5 + 7) * page

    @pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
    def test_only_whole_pages_are_taken(self, count: int) -> None:
        pool = make_pool(10)
        block = CacheBlock(pool)
        write(block, list(range(count)))
        assert pool.used_pages == -(-count // PAGE)
        assert pool.used_bytes == pool.used_pages * PAGE * pool.bytes_per_token
        check_contents(block, list(range(count)))

    def test_growth_is_amortised(self) -> None:
        pool = make_pool(1000)
        first, second = CacheBlock(pool), CacheBlock(pool)
        storages = set()
        for _ in range(1000):
            for block in (first, second):
                pool.reserve([(block, 1)])
                block.advance(1)
            storages.add(tuple(t.data_ptr() for _, *pair in pool.storage() for t in pair))
        slots = pool.keys[0].shape[1]
        assert len(storages) <= np.log2(2000 / PAGE) + 2
        assert 2000 <= slots <= 4 * 2000
        assert len(first.slots(0, 1000)) == 1000

    def test_storage_is_aligned_and_never_beyond_the_limit(self) -> None:
        pool = make_pool(7)
        block = CacheBlock(pool)
        for _ in range(7 * PAGE):
            pool.reserve([(block, 1)])
            block.advance(1)
            for _, keys, values in pool.storage():
                assert keys.shape[1] == values.shape[1] <= 7 * PAGE
                assert keys.data_ptr() % ALIGNMENT == values.data_ptr() % ALIGNMENT == 0

    def test_a_lone_block_stays_in_one_piece(self) -> None:
        """So that attention can read it in place."""
        pool = make_pool(100)
        block = CacheBlock(pool)
        for _ in range(50):
            write(block, [1] * PAGE)
        assert len(block.extents) == 1

    def test_blocks_side_by_side_stay_in_few_pieces(self) -> None:
        pool = make_pool(400)
        blocks = [CacheBlock(pool) for _ in range(4)]
        for _ in range(80):
            for block in blocks:
                pool.reserve([(block, PAGE)])
                block.advance(PAGE)
        assert max(len(block.extents) for block in blocks) <= 12


class TestForks:
    """A twin costs nothing until one side writes, and then no more than it must."""

    @pytest.mark.parametrize("writer", ["block", "twin"])
    @pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 5])
    def test_one_page_more_after_a_write(self, writer: str, length: int) -> None:
        pool = make_pool(20)
        block = CacheBlock(pool)
        write(block, list(range(length)))
        used = pool.used_pages
        twin = block.fork()
        assert pool.used_pages == used
        write(block if writer == "block" else twin, [500])
        assert pool.used_pages == used + 1
        write(twin if writer == "block" else block, [600])
        assert pool.used_pages == used + (2 if length % PAGE == 0 else 1)
        mine, others = ([500], [600]) if writer == "block" else ([600], [500])
        check_contents(block, [*range(length), *mine])
        check_contents(twin, [*range(length), *others])

    def test_a_twin_outlives_the_original(self) -> None:
        pool = make_pool(20)
        block = CacheBlock(pool)
        write(block, list(range(50)))
        twin, second = block.fork(), block.fork()
        block.free()
        check_contents(twin, list(range(50)))
        twin.clear()
        check_contents(second, list(range(50)))
        assert pool.used_pages == 2
        second.free()
        assert pool.used_pages == 0

    def test_writing_beside_a_freed_twin_copies_nothing(self) -> None:
        pool = make_pool(20)
        block = CacheBlock(pool)
        write(block, list(range(10)))
        block.fork().free()
        write(block, [10])
        assert pool.used_pages == 1

    def test_truncating_one_side_keeps_the_other(self) -> None:
        pool = make_pool(20)
        block = CacheBlock(pool)
        write(block, list(range(100)))
        twin = block.fork()
        block.truncate(40)
        write(block, [7] * 30)
        check_contents(block, [*range(40), *[7] * 30])
        check_contents(twin, list(range(100)))

    def test_both_twins_in_one_reservation(self) -> None:
        """The first to copy leaves the page to the second."""
        pool = make_pool(4)
        block = CacheBlock(pool)
        write(block, list(range(10)))
        twin, third = block.fork(), block.fork()
        pool.reserve([(block, 1), (twin, 1), (third, 1)])
        assert pool.used_pages == 3
        assert len({page for each in (block, twin, third) for page in pages_of(each)}) == 3

    @pytest.mark.parametrize("length", [5, PAGE])
    def test_extending_with_a_twin_or_with_itself(self, length: int) -> None:
        pool = make_pool(20)
        block = CacheBlock(pool)
        write(block, list(range(length)))
        twin = block.fork()
        block.extend(twin)
        check_contents(block, [*range(length), *range(length)])
        check_contents(twin, list(range(length)))
        block.extend(block)
        check_contents(block, list(range(length)) * 4)


class TestGivingBack:
    """Unused memory returns, at once or at the next request."""

    def test_clear_and_free(self) -> None:
        pool = make_pool(20)
        first, second = CacheBlock(pool), CacheBlock(pool)
        write(first, list(range(40)))
        write(second, list(range(40)))
        first.clear()
        assert (len(first), pool.used_pages) == (0, 2)
        write(first, [1, 2])
        check_contents(first, [1, 2])
        check_contents(second, list(range(40)))
        first.free()
        second.free()
        second.free()
        assert pool.used_bytes == 0

    def test_storage_is_returned_once_no_page_is_held(self) -> None:
        pool = make_pool(20)
        first, second = CacheBlock(pool), CacheBlock(pool)
        write(first, [1])
        write(second, [2])
        first.free()
        assert pool.keys[0].shape[1] > 0
        second.free()
        assert all(keys.numel() == values.numel() == 0 for _, keys, values in pool.storage())
        third = CacheBlock(pool)
        write(third, [3])
        check_contents(third, [3])

    def test_clear_keeps_the_storage_and_trim_returns_it(self) -> None:
        pool = make_pool(20)
        block = CacheBlock(pool)
        write(block, [1])
        block.clear()
        assert pool.keys[0].shape[1] > 0
        pool.trim()
        assert pool.keys[0].shape[1] == 0
        write(block, [4, 5])
        check_contents(block, [4, 5])

    def test_a_dropped_block_gives_its_pages_back(self) -> None:
        pool = make_pool(2)
        block = CacheBlock(pool)
        write(block, list(range(2 * PAGE)))
        twin = block.fork()
        del block
        gc.collect()
        assert pool.used_pages == 2
        del twin
        gc.collect()
        assert pool.used_pages == 0
        again = CacheBlock(pool)
        write(again, list(range(2 * PAGE)))
        check_contents(again, list(range(2 * PAGE)))

    def test_a_block_freed_and_dropped_is_counted_once(self) -> None:
        pool = make_pool(2)
        kept, block = CacheBlock(pool), CacheBlock(pool)
        write(kept, [1])
        write(block, [2])
        block.free()
        del block
        gc.collect()
        assert pool.used_pages == 1
        assert pool._owners.min() >= 0

    def test_blocks_of_a_dropped_model_do_not_keep_it(self) -> None:
        """A block that outlives the model's last use is harmless."""
        pool = make_pool(2)
        block = CacheBlock(pool)
        write(block, [1])
        del pool
        gc.collect()
        check_contents(block, [1])


class TestOutOfMemory:
    """A call that does not fit changes nothing, says so, and succeeds once there is room."""

    def test_forward(self, small: Callable[[int], SharedCacheModel]) -> None:
        model = small(3)
        prompt, other = block_of(model, some_tokens(40)), block_of(model, some_tokens(5))
        with unchanged(prompt, other), pytest.raises(OutOfCacheMemoryError, match="30 more tokens"):
            model.forward([[prompt]], [some_tokens(30)])
        with unchanged(prompt, other), pytest.raises(MemoryError, match="0 of 3 are free"):
            model.forward([[prompt]], [some_tokens(30)])
        other.free()
        model.forward([[prompt]], [some_tokens(30)])
        assert len(prompt) == 70

    def test_one_writer_of_several(self, small: Callable[[int], SharedCacheModel]) -> None:
        model = small(4)
        prompt, alice, bob = (block_of(model, some_tokens(30, seed)) for seed in range(3))
        spare = block_of(model, [1])
        views, tokens = [[prompt, bob, alice], [prompt, alice, bob]], [[1, 2], [1, 2, 3]]
        with unchanged(prompt, alice, bob, spare), pytest.raises(OutOfCacheMemoryError):
            model.forward(views, tokens)
        spare.free()
        assert torch.isfinite(model.forward(views, tokens)).all()
        assert (len(alice), len(bob)) == (32, 33)

    def test_extend(self, small: Callable[[int], SharedCacheModel]) -> None:
        model = small(3)
        prompt, step, spare = (block_of(model, some_tokens(20, seed)) for seed in range(3))
        with unchanged(prompt, step, spare), pytest.raises(OutOfCacheMemoryError):
            prompt.extend(step)
        del spare
        prompt.extend(step)
        assert (len(prompt), len(step)) == (40, 20)

    def test_a_forks_copy(self, small: Callable[[int], SharedCacheModel]) -> None:
        """Even one token needs a page where the last one is shared."""
        model = small(2)
        block, spare = block_of(model, some_tokens(20)), block_of(model, [1])
        twin = block.fork()
        with unchanged(block, twin, spare), pytest.raises(OutOfCacheMemoryError):
            model.forward([[twin]], [[5]])
        spare.free()
        model.forward([[twin]], [[5]])
        assert (len(block), len(twin)) == (20, 21)

    def test_a_call_larger_than_the_whole_cache(
        self, small: Callable[[int], SharedCacheModel]
    ) -> None:
        model = small(2)
        block = model.new_block()
        with unchanged(block), pytest.raises(OutOfCacheMemoryError):
            model.forward([[block]], [some_tokens(2 * PAGE + 1)])
        model.forward([[block]], [some_tokens(2 * PAGE)])
        assert model.pool.used_bytes == model.pool.limit_bytes

    def test_an_interrupted_commit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A commit that fails in its second layer leaves no token and takes no page."""
        pool = make_pool(20)
        block, step = CacheBlock(pool), CacheBlock(pool)
        write(block, list(range(20)))
        write(step, list(range(50)))

        rotate = Rotation.rotate

        def fail(self: Rotation, x: Tensor, shift: int) -> Tensor:
            if self is pool.layers[1].rotation:
                raise KeyboardInterrupt
            return rotate(self, x, shift)

        with monkeypatch.context() as patch:
            patch.setattr(Rotation, "rotate", fail)
            with unchanged(block, step), pytest.raises(KeyboardInterrupt):
                block.extend(step)
        block.extend(step)
        assert pool.used_pages == 3 + 2
        check_contents(block, [*range(20), *range(50)])

    @pytest.mark.parametrize("failing", range(4))
    def test_the_device_itself_is_full(self, failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Growth that fails at any layer changes nothing, and a smaller request still succeeds."""
        pool = make_pool(1000)
        block = CacheBlock(pool)
        write(block, list(range(40)))
        zeros, calls = pool._zeros, [0]

        def fail(*shape: int) -> Tensor:
            calls[0] += 1
            if calls[0] > failing:
                raise RuntimeError("not enough memory: you tried to allocate more")
            return zeros(*shape)

        with monkeypatch.context() as patch:
            patch.setattr(pool, "_zeros", fail)
            with (
                unchanged(block),
                pytest.raises(OutOfCacheMemoryError, match="device has no memory"),
            ):
                pool.reserve([(block, 100 * PAGE)])
        write(block, list(range(40, 40 + 5 * PAGE)))
        check_contents(block, list(range(40 + 5 * PAGE)))


def test_blocks_survive_a_pass_under_inference_mode(llama: SharedCacheModel) -> None:
    """Storage first made under inference_mode can be written outside of it, and the other way."""
    model = SharedCacheModel.from_pretrained(llama.model, self_check=False)
    with torch.inference_mode():
        block = block_of(model, some_tokens(20))
    model.forward([[block]], [[1, 2]])
    with torch.inference_mode():
        model.forward([[block]], [[3]])
        twin = block.fork()
        twin.extend(block)
    twin.extend(block)
    assert len(twin) == 69
    assert all(torch.isfinite(part).all() for part in contents(twin))


def tiny(**options: int) -> SharedCacheModel:
    """A tiny Llama; the first family of the table."""
    return SharedCacheModel.from_pretrained(build(ACCEPTED[0]), **options)  # type: ignore[arg-type]


def test_blocks_are_not_copied_by_python() -> None:
    """A shallow copy would give the same memory back twice."""
    block = tiny().new_block()
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(InvalidBlockError, match="fork"):
            copied(block)


def test_a_dropped_twin_counts_no_more() -> None:
    """Its share of a page is back before room is counted."""
    model = tiny(cache_bytes=10 * 32 * 512)
    block, other = model.new_block(), model.new_block()
    assert model.pool.limit_pages == 10
    model.forward([[block]], [list(range(40))])
    twin = block.fork()
    model.forward([[other]], [[1] * 256])
    assert len(twin) == 40
    del twin
    model.forward([[block]], [[1]])
    assert len(block) == 41


def test_a_cache_without_room_is_refused_on_load() -> None:
    """Not by the self-check's own blocks."""
    for size in (0, -7, 100):
        with pytest.raises(ModelLoadError, match=f"cache_bytes={size}"):
            tiny(cache_bytes=size)


def test_shortening_a_block() -> None:
    """Truncate is part of the interface: what is left is as if never longer."""
    model = tiny()
    block, expected = model.new_block(), model.new_block()
    model.forward([[block]], [list(range(80))])
    model.forward([[expected]], [list(range(35))])
    block.truncate(35)
    assert torch.allclose(block.keys(1), expected.keys(1), atol=1e-5)
    with pytest.raises(InvalidBlockError, match="-5"):
        block.truncate(-5)
