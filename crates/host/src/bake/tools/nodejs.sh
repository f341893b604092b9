# A version of Node.js from npm's registry before the system's own, with an npm that it runs.
set -eu
case $VERSION in
8 | 10) npm=6 ;;
12 | 14 | 16) npm=8 ;;
*) npm=10 ;;
esac
npm install -g --no-fund --no-audit "npm@$npm"
npm install -g --no-fund --no-audit "node@$VERSION"
