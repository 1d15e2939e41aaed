import pytest

pytest.register_assert_rewrite(f"{__name__}.items")  # what is compared there is shown when it differs
