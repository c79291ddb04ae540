#!/bin/sh
# Finds the address under which clients reach this pod's media port, and writes the configuration with it.
#   ADDRESS_OF        service: the load balancer of the Service SERVICE; node: ExternalIP of the node NODE_NAME
#   POD_NAMESPACE     where the Service is
#   TIMEOUT_SECONDS   how long to wait for an address
#   SOURCE, TARGET    the configuration without and with the address; SOURCE has no table [media]
set -eu

fail() {
    echo "address: $*" >&2
    exit 1
}

# Addresses and names, one a line. What kubectl complains of is told when the time is over.
ask() {
    case $ADDRESS_OF in
    service)
        kubectl --request-timeout=10s --namespace "$POD_NAMESPACE" get service "$SERVICE" \
            --output 'jsonpath={range .status.loadBalancer.ingress[*]}{.ip}{"\n"}{.hostname}{"\n"}{end}'
        ;;
    node)
        kubectl --request-timeout=10s get node "$NODE_NAME" \
            --output 'jsonpath={range .status.addresses[?(@.type=="ExternalIP")]}{.address}{"\n"}{end}'
        ;;
    esac
}

# Prints what is an address as it is, and the addresses of what is a name.
resolve() {
    while read -r one; do
        case $one in
        '') ;;
        *[!0-9a-fA-F.:]*) getent ahosts "$one" | while read -r address rest; do echo "$address"; done | sort -u ;;
        *) echo "$one" ;;
        esac
    done
}

case $ADDRESS_OF in service | node) ;; *) fail "ADDRESS_OF is \"$ADDRESS_OF\": it has to be service or node." ;; esac
deadline=$(($(date +%s) + TIMEOUT_SECONDS))
list=''
while :; do
    found=$(ask) || found=''
    for address in $(echo "$found" | resolve); do
        list="$list${list:+, }\"$address\""
    done
    [ -z "$list" ] || break
    [ "$(date +%s)" -lt "$deadline" ] ||
        fail "no address of $ADDRESS_OF ${SERVICE:-$NODE_NAME} within $TIMEOUT_SECONDS s: has it one, and may this account read it?"
    sleep 2
done
{
    cat "$SOURCE"
    printf '\n[media]\nadvertise = [%s]\n' "$list"
} >"$TARGET"
