"""The one page, as HTML. Whatever people wrote is escaped here, and nowhere else."""

from html import escape

STYLE = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fdfdfb}"
    "h1{font-weight:600}form{display:grid;gap:.6rem;margin:1.5rem 0}label{display:grid;gap:.2rem}"
    "input,textarea,button{font:inherit;padding:.5rem;border:1px solid #999;border-radius:.3rem}"
    "button{background:#145;color:#fff;border:0;justify-self:start;padding:.5rem 1.2rem}"
    "li{margin:0 0 1rem;overflow-wrap:anywhere}ol{list-style:none;padding:0}time,footer{color:#666;font-size:.85rem}"
    ".error{color:#a00}p{margin:0;white-space:pre-wrap}"
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{error}
<form method="post" action="/">
<label>Name <input name="name" maxlength="80" required autocomplete="name"></label>
<label>Message <textarea name="message" maxlength="1000" rows="3" required></textarea></label>
<button>Sign the guestbook</button>
</form>
<ol>
{entries}
</ol>
<footer>{foot}</footer>
</body>
</html>
"""

ENTRY = '<li><strong>{name}</strong> <time datetime="{at}">{day}</time><p>{message}</p></li>'


def render(title, entries, foot, error=None):
    return PAGE.format(
        title=escape(title),
        style=STYLE,
        error=f'<p class="error" role="alert">{escape(error)}</p>' if error else "",
        entries="\n".join(
            ENTRY.format(
                name=escape(entry["name"]),
                at=escape(entry["created_at"]),
                day=escape(entry["created_at"][:16].replace("T", " ")),
                message=escape(entry["message"]),
            )
            for entry in entries
        )
        or "<li>Nobody has signed yet.</li>",
        foot=escape(foot),
    )
