if ! is_still; then
  echo 'somebody has let the app write meanwhile' >&2
  exit 1
fi
