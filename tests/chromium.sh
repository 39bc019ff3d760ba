#!/bin/sh
# Says where Chromium is, which tests/pages opens the week's page in; installs Debian's where that can be done.
set -eu
find() { command -v chromium || command -v chromium-browser || command -v google-chrome || command -v google-chrome-stable; }
if ! find && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
	{ apt-get update && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core; } > /dev/null 2>&1 || true
	find || { echo "Chromium can't be installed: try apt-get install chromium" >&2; exit 1; }
elif ! find > /dev/null; then
	echo "Chromium is missing, the week's page is tested in it: install chromium or google-chrome" >&2
	exit 1
fi
