#!/usr/bin/env bash
# A Lambda function in plain bash. It does what its event says, and asks for the next one.

call() { # method, path, body; the answer's body goes to $body
    exec 3<>"/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}"
    printf '%s /2018-06-01/runtime/%s HTTP/1.1\r\nHost: lambda\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' \
        "$1" "$2" "${#3}" "$3" >&3
    body=$(cat <&3)
    id=$(sed -n 's/^lambda-runtime-aws-request-id: \([0-9a-f-]*\).*/\1/p' <<<"$body")
    body=${body##*$'\r\n\r\n'}
    exec 3>&-
}

echo started
while call GET invocation/next ""; do
    case $body in
    answer)
        echo '{"level": "INFO"}'
        echo trouble >&2
        call POST invocation/1/response '{"done": true}'
        ;;
    fail) call POST invocation/1/error '{"errorType": "Unfinished", "errorMessage": "2 left"}' ;;
    exit) exit 3 ;;
    id)
        echo "$id"
        call POST "invocation/$id/response" null
        ;;
    names)
        compgen -e
        call POST invocation/1/response null
        ;;
    *) ;; # no answer
    esac
done
