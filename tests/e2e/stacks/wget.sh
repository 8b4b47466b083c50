# Puts an object and prints it: wget.sh BASE BUCKET KEY TEXT. All else is in the environment.
set -eu
wget -nv -O /dev/null --tries=1 --method=PUT --header='content-type: text/plain' --body-data="$4" "$1/$2/$3"
wget -nv -O - --tries=1 "$1/$2/$3"
