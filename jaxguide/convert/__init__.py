"""Published weights, to our files and back: `python -m jaxguide.convert`."""

from jaxguide.convert.published import (
    read_published as read_published,
    write_published as write_published,
)
