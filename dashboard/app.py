"""The app: six views under one bar, the same sidebar beside each. Lays out; numbers are never born here."""

import streamlit as st

from dashboard import address, basket, controls, engine, links, state, words

ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>"
    "<path fill='#0072B2' d='M3 5h26v6H3z'/><path fill='#D55E00' d='M17 13h12v6H17z'/>"
    "<path fill='#009E73' d='M3 21h14v6H3z'/></svg>"
)
"""Drawn here because an icon by name is fetched from another host."""

STYLE = """<style>
.stMainBlockContainer { padding: 4.5rem 2rem 4rem; max-width: 1180px; }
[data-testid="stSidebarHeader"] { height: 2.5rem; margin-bottom: 0; }
[data-testid="stSidebarUserContent"] { padding-bottom: 1.5rem; }
.st-key-answer p, .st-key-early_answer p, .st-key-first_look p { font-size: 1.7rem; line-height: 1.35; }
.st-key-arms table *, .st-key-early_arms table * { white-space: nowrap !important; }
</style>"""
"""Fixed text: nothing a user wrote ever goes into HTML."""

VIEWS = (
    ("predict", "Predict", "bolt"),
    ("what_if", "What if", "grid_on"),
    ("acceptance", "Entropy and acceptance", "show_chart"),
    ("profiles", "Profiles", "speed"),
    ("measured", "Measured vs predicted", "rule"),
    ("timeline", "Timeline", "view_timeline"),
)
"""File, title and icon; the first one opens."""


def main() -> None:
    """Draw the page once; Streamlit calls this at every interaction."""
    st.set_page_config(page_title="Bebop", page_icon=ICON, layout="wide")
    st.html(STYLE)
    pages = {
        name: st.Page(
            f"views/{name}.py", title=title, icon=f":material/{icon}:", url_path=name, default=name == VIEWS[0][0]
        )
        for name, title, icon in VIEWS
    }
    page = st.navigation(list(pages.values()), position="top")
    link = address.arrive(page.url_path)
    with st.sidebar:
        st.title("Bebop", anchor=False)
        service = engine.chosen().address
        if service is not None:
            st.caption(
                f":material/dns: Predictions and plans: {words.escape_markdown(service)}. All else: this machine."
            )
        run = st.container()  # stands on top, but knows only after the controls whether there is something to run
        asked = controls.draw(link)
        if page.url_path != pages["predict"].url_path:
            # Going there by code would clear every control, so the visitor goes by a link.
            run.page_link(pages["predict"], label="Predict with this", icon=":material/bolt:", width="stretch")
        elif run.button("Run", type="primary", width="stretch", key=state.RUN, disabled=asked is None):
            state.want_run()
        basket.render()
        if service is None:
            st.caption(
                ":material/computer: Works on this machine.",
                help="`bebop ui --api URL` has predictions and plans worked out by a service.",
            )
    state.ask(asked)
    address.share({} if asked is None else links.write(asked, state.chosen_arm()))
    address.show()
    page.run()
    address.show(is_last=True)


if __name__ == "__main__":
    main()
