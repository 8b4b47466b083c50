"""What differs through sigward, and why that is right."""

import re

from tests.e2e.s3_matrix.matrix import Difference

# As the clients' languages tell of it: a member, a pair, in JSON, a line of mc's, alone.
FORMS = (
    r"'Content-?Encoding': 'aws-chunked'",
    r"\('Content-Encoding', 'aws-chunked'\)",
    r'"aws-chunked"',
    r"\bnull\b",
    r"Content-Encoding +: aws-chunked",
    r"aws-chunked",
    r"[ ,|]",
)
ENCODING = re.compile("|".join(FORMS))


def reason(difference: Difference) -> str | None:
    """None: that is not expected."""
    if difference.server == "versitygw" and ENCODING.sub("", difference.direct) == ENCODING.sub("", difference.through):
        return "versitygw stores `aws-chunked` as an object's encoding, which AWS takes off"
    return None
