# The stack said so to the database, which takes its time to follow. What cannot be asked counts as not read-only.
is_still() {
  case $(ask --batch --skip-column-names --execute 'SELECT @@GLOBAL.read_only') in
    1 | ON | NO_LOCK*) ;;
    *) return 1 ;;
  esac
}
for _ in {1..180}; do
  if is_still; then break; fi
  sleep 5
done
if ! is_still; then
  echo 'the database is not read-only, although its stack says so' >&2
  exit 1
fi
# Not everybody minds that: the login that the app has must be one of those who cannot write.
if ask --execute 'CREATE TABLE `vend move` (a INT)' 2> /dev/null; then
  ask --execute 'DROP TABLE `vend move`'
  echo 'whoever has the login of the app may write although the database is read-only' >&2
  exit 1
fi
