curl --silent --show-error --fail --output "$dir"/roots.pem https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
tls=(--ssl-ca="$dir"/roots.pem --ssl-verify-server-cert)
