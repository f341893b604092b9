coproc alone { ask --batch --skip-column-names --unbuffered; }
echo "SELECT GET_LOCK('vend-move', 0);" >&"${alone[1]}"
read -r is_alone <&"${alone[0]}"
if [ "$is_alone" != 1 ]; then
  echo 'another load into this database is under way: wait until it has ended' >&2
  exit 1
fi
