"""Colours, fonts and corners of the page; system fonts alone, so that it looks the same without internet."""

from gradio.themes import Base, Color, sizes

ACCENT = Color(
    *("#f3f2ff", "#e7e5ff", "#d2ceff", "#b3acff", "#9184fb", "#7560ef", "#6246dc", "#5136ba", "#432f97", "#392b79", "#221950"),
    name="iris",
)
GREY = Color(
    *("#fafaf9", "#f5f4f2", "#e8e6e3", "#d7d4d0", "#a5a19c", "#77736e", "#575450", "#42403d", "#292826", "#1b1a19", "#111110"),
    name="stone",
)
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def make_theme() -> Base:
    """The theme of the page; `style.css` does the rest."""
    theme = Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=GREY,
        radius_size=sizes.radius_lg,
        text_size=sizes.text_md,
        font=FONT,
        font_mono=MONO,
    )
    return theme.set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        block_border_width="0px",
        block_shadow="none",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_title_text_weight="600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="white",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
    )
