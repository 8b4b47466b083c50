# Puts an object and prints it: curl.sh BASE BUCKET KEY TEXT. All else is in the environment.
set -eu
curl -sS --fail-with-body -o /dev/null -X PUT -H 'content-type: text/plain' --data-binary "$4" "$1/$2/$3"
curl -sS --fail-with-body "$1/$2/$3"
