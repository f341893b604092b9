# After the count: a server that was started again meanwhile let others write.
case $(ask --batch --skip-column-names --execute 'SELECT @@GLOBAL.read_only') in
    0 | OFF)
        echo 'it was started again since it was dumped, so it may have been written to' >&2
        exit 1
        ;;
esac
