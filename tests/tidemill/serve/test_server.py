import gc


def test_what_a_server_starts_with_is_left_out_of_collections(api_url: str) -> None:
    assert api_url
    assert gc.get_freeze_count() > 10_000
