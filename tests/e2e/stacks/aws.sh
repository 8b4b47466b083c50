# Puts an object and prints it: aws.sh PYTHON BASE BUCKET KEY TEXT. All else is in the environment; AWS_ENDPOINT_URL_S3 tells of an endpoint.
set -eu
file=$(mktemp)
trap 'rm -f "$file"' EXIT
printf '[default]\ns3 =\n  addressing_style = path\n' > "$file.config"
trap 'rm -f "$file" "$file.config"' EXIT
export AWS_CONFIG_FILE="$file.config" AWS_MAX_ATTEMPTS=1 PYTHONWARNINGS=ignore
printf %s "$5" > "$file"
"$1" -m awscli s3api put-object --bucket "$3" --key "$4" --body "$file" > /dev/null
"$1" -m awscli s3api get-object --bucket "$3" --key "$4" "$file" > /dev/null
cat "$file"
