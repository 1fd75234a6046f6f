"""Two kinds of charts as SVG: bars of ratios, and lines."""
import math
from html import escape

COLORS = ["#2f6fb3", "#e08a2e", "#3c9a5f", "#b0478f", "#7a6fc4", "#8a8a8a"]
STYLE = ("text{font:13px sans-serif;fill:#333}.t{font-size:16px;font-weight:bold}.s{font-size:11px}"
         ".r{text-anchor:end}.m{text-anchor:middle}.g{stroke:#ddd}.a{stroke:#888}")


def document(width, height, body):
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">\n'
            '<style>%s</style>\n<rect width="100%%" height="100%%" fill="#fff"/>\n%s\n</svg>\n'
            % (width, height, width, height, STYLE, "\n".join(body)))


def text(x, y, words, kind=""):
    return '<text x="%.1f" y="%.1f" class="%s">%s</text>' % (x, y, kind, escape(words))


def line(x1, y1, x2, y2, kind):
    return '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>' % (x1, y1, x2, y2, kind)


def ticks(highest):
    """Four to eight round numbers from 0 to at least the highest."""
    step = 10 ** math.floor(math.log10(highest / 4)) if highest > 0 else 1
    for factor in (1, 2, 2.5, 5, 10):
        if highest / (step * factor) <= 7:
            step *= factor
            break
    return [step * n for n in range(math.ceil(highest / step) + 1)]


def number(value):
    return "{:,.0f}".format(value) if value >= 100 or value == int(value) else "%.3g" % value


def bars(title, series, groups):
    """groups: (label, [value of each of the series]).  A line marks 1, the rival's own speed."""
    right, top, bar, gap = 70, 64, 17, 11
    left = 24 + 7 * max(len(label) for label, _ in groups)
    width, plot = 900, 900 - left - right
    marks = ticks(max(value for _, values in groups for value in values))
    height = top + len(groups) * (bar * len(series) + gap) + 34
    scale = plot / marks[-1]
    body = [text(20, 28, title, "t")]
    if len(series) > 1:
        for n, name in enumerate(series):
            body.append('<rect x="%d" y="40" width="11" height="11" fill="%s"/>'
                        % (left + n * 190, COLORS[n]))
            body.append(text(left + 16 + n * 190, 50, name))
    for mark in marks:
        x = left + mark * scale
        body.append(line(x, top, x, height - 30, "g"))
        body.append(text(x, height - 14, number(mark), "m s"))
    y = top + gap / 2
    for label, values in groups:
        body.append(text(left - 8, y + bar * len(values) / 2 + 4, label, "r"))
        for n, value in enumerate(values):
            body.append('<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>'
                        % (left, y, value * scale, bar - 2, COLORS[n]))
            body.append(text(left + value * scale + 5, y + bar - 5, "%.1f" % value, "s"))
            y += bar
        y += gap
    body.append(line(left + scale, top, left + scale, height - 30, "a"))
    return document(width, height, body)


def panel(x0, y0, title, across, up, points, series):
    """One line chart; its points are as far apart as each other, their values at their feet."""
    width, height, left, top = 430, 220, 58, 52
    legend = 18 * len(series)
    marks = ticks(max(value for _, values in series for value in values))
    step = (width - left - 30) / max(len(points) - 1, 1)
    body = [text(x0 + 10, y0 + 20, title, "t"), text(x0 + 10, y0 + 40, up, "s")]
    for mark in marks:
        y = y0 + top + height * (1 - mark / marks[-1])
        body.append(line(x0 + left, y, x0 + width - 20, y, "g"))
        body.append(text(x0 + left - 6, y + 4, number(mark), "r s"))
    for n, point in enumerate(points):
        body.append(text(x0 + left + 5 + n * step, y0 + top + height + 16, number(point), "m s"))
    body.append(text(x0 + width - 20, y0 + top + height + 32, across, "r s"))
    for n, (name, values) in enumerate(series):
        color = COLORS[n % len(COLORS)]
        at = [(x0 + left + 5 + i * step, y0 + top + height * (1 - value / marks[-1]))
              for i, value in enumerate(values)]
        body.append('<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>'
                    % (color, " ".join("%.1f,%.1f" % point for point in at)))
        body.extend('<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>' % (*point, color)
                    for point in at)
        y = y0 + top + height + 54 + 18 * n
        body.append('<rect x="%d" y="%.1f" width="11" height="11" fill="%s"/>'
                    % (x0 + left, y - 10, color))
        body.append(text(x0 + left + 16, y, name))
    return body, top + height + 54 + legend


def lines(panels):
    """panels: (title, x axis, y axis, [x], [(name, [y])]), two in a row."""
    body, y = [], 10
    for n in range(0, len(panels), 2):
        lowest = 0
        for i, chart in enumerate(panels[n:n + 2]):
            drawn, height = panel(10 + 450 * i, y, *chart)
            body.extend(drawn)
            lowest = max(lowest, height)
        y += lowest + 16
    return document(910, y, body)
