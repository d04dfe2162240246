"""Profiles: latency surfaces by operation, the verify/decode ratio and the roofline, with their origins."""

import streamlit as st


def render() -> None:
    """Say what comes."""
    st.header("Profiles", anchor=False)
    st.info(
        "Not here yet: latency surfaces by operation, the verify/decode ratio and the roofline, with their origins.",
        icon=":material/construction:",
    )


if __name__ == "__main__":
    render()
