#!/bin/sh
# Shards that split, move and spread, and a node that leaves, by hand: a tour that checks
# every step. It needs a cluster of four nodes that nobody else uses, and no tool but sh,
# grep, sed and awk:
#
#   kiloraft demo --nodes 4 --shards 1 --exec examples/elastic.sh
#
# It ends with 0 if everything was as it should be, and says what was not otherwise. With
# ELASTIC_JSON set to a folder it leaves every JSON document there.
set -eu

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
documents=0

fail() {
  echo "elastic: $*" >&2
  [ ! -s "$out/stderr" ] || sed 's/^/elastic: stderr: /' "$out/stderr" >&2
  exit 1
}

# expect CODES COMMAND... runs kiloraft, of which the exit code has to be one of CODES,
# separated by commas. What it prints is in $out/stdout.
expect() {
  codes=$1
  shift
  code=0
  kiloraft "$@" >"$out/stdout" 2>"$out/stderr" || code=$?
  case ",$codes," in
  *",$code,"*) ;;
  *) fail "kiloraft $*: exit code $code, want $codes" ;;
  esac
}

# document COMMAND... is expect 0 with -o json: one document on stdout, and nothing else.
document() {
  expect 0 "$@" -o json
  document_is_whole "$*"
}

document_is_whole() {
  first=$(head -c 1 "$out/stdout")
  last=$(tail -n 1 "$out/stdout")
  case "$first$last" in
  '{}' | '[]' | '[[]') ;;
  *) fail "kiloraft $1: not one JSON document: $(cat "$out/stdout")" ;;
  esac
  documents=$((documents + 1))
  [ -z "${ELASTIC_JSON:-}" ] || cp "$out/stdout" "$ELASTIC_JSON/$documents.json"
}

# refused COMMAND... has to end with 1 or 2, to say why in one line, and to print nothing.
refused() {
  expect 1,2 "$@"
  [ ! -s "$out/stdout" ] || fail "kiloraft $*: refused, and prints $(cat "$out/stdout")"
  [ "$(wc -l <"$out/stderr")" -eq 1 ] || fail "kiloraft $*: refused in more than a line, or without a word"
  echo "  refused: $(cat "$out/stderr")"
}

# has 'FIELD' VALUE: the document has it somewhere.
has() {
  grep -q "^ *\"$1\": $2,\{0,1\}\$" "$out/stdout" || fail "no \"$1\": $2 in $(cat "$out/stdout")"
}

# occurrences FIELD counts the fields of that name.
occurrences() { grep -c "\"$1\":" "$out/stdout" || true; }

# locate KEY sets on to the nodes with a replica of the key's shard: "1 2 3 ".
locate() {
  document shard show --key "$1"
  on=$(awk '/"replicas": \[/ { within = 1 } within && /"node":/ { gsub(/[^0-9]/, ""); print } within && /\]/ { exit }' "$out/stdout" | sort -n | tr '\n' ' ')
  [ -n "$on" ] || fail "shard show lists no replicas"
}

step() { echo "$*"; }

step "the cluster is whole: four nodes"
document status --wait --timeout 2m
has healthy true
has nodes 4
document node list
[ "$(occurrences address)" -eq 4 ] || fail "node list does not have four nodes"

step "nothing moves but what this tour asks for"
document settings set placement.rebalance false
has value false

step "forty keys"
n=10
while [ "$n" -lt 50 ]; do
  document kv put "user/$n" "value $n"
  n=$((n + 1))
done

step "three splits at once: first in thought, then in earnest"
document shard list
before=$(occurrences keyspace)
document shard split --key user/10 --at user/20 --at user/30 --at user/40 --dry-run
has dry_run true
document shard list
[ "$(occurrences keyspace)" -eq "$before" ] || fail "--dry-run has split something"
document shard split --key user/10 --at user/20 --at user/30 --at user/40 --timeout 1m
document shard list
after=$(occurrences keyspace)
[ "$after" -eq $((before + 3)) ] || fail "$before shards became $after by three splits"
for key in user/20 user/30 user/40; do
  has start "\"$key\""
done
expect 0 shard list
cat "$out/stdout"
refused shard split --key user/10 --at user/30
refused shard split --key user/20 --at user/20
document shard list
[ "$(occurrences keyspace)" -eq "$after" ] || fail "a split that was refused has split something"

step "a shard moves, chosen by a key in it: first in thought, then in earnest"
document status --wait --timeout 1m
locate user/25
old=$on
from=$(echo "$old" | cut -d ' ' -f 1)
for to in 1 2 3 4; do
  case " $old" in *" $to "*) ;; *) break ;; esac
done
document shard move --key user/25 --from "$from" --to "$to" --dry-run
has dry_run true
has kind '"move"'
has from_node "$from"
has to_node "$to"
locate user/25
[ "$on" = "$old" ] || fail "--dry-run has moved something"
expect 0 shard move --key user/25 --from "$from" --to "$to" --dry-run
cat "$out/stdout"
document shard move --key user/25 --from "$from" --to "$to" --timeout 2m
has state '"done"'
locate user/25
new=$on
case " $new" in *" $to "*) ;; *) fail "the shard is on $new and not on $to" ;; esac
case " $new" in *" $from "*) fail "the shard is still on $from: $new" ;; esac

step "what cannot be is refused alike with and without --dry-run"
refused shard move --key user/25 --from "$from" --to "$to"
refused shard move --key user/25 --from "$from" --to "$to" --dry-run
refused shard move --key user/25 --from "$to" --to 99 --dry-run
refused shard move --key user/25 --from "$to" --to "$to"
locate user/25
[ "$on" = "$new" ] || fail "what was refused has moved something"
document ops list
has kind '"move"'

step "leaders and replicas spread"
document shard scatter --dry-run
has dry_run true
document shard scatter --timeout 2m
document status --wait --timeout 1m
has leaderless 0
has under_replicated 0
expect 0 shard list
cat "$out/stdout"

step "all keys are there"
document kv scan user/ user0
[ "$(occurrences key)" -eq 40 ] || fail "a scan finds $(occurrences key) of 40 keys"

step "node 4 leaves: first in thought, then in earnest"
document node decommission 4 --dry-run
has dry_run true
document node list
has id 4
document node decommission 4 --timeout 3m
has state '"done"'
document node list
[ "$(occurrences address)" -eq 3 ] || fail "node 4 is still listed"
document shard list
grep -q '^ *"node": 4,\{0,1\}$' "$out/stdout" && fail "node 4 still has replicas"
refused node decommission 3 --dry-run

step "the cluster is whole: three nodes, and all keys"
document settings set placement.rebalance true
document status --wait --timeout 2m
has healthy true
has nodes 3
document kv scan user/ user0
[ "$(occurrences key)" -eq 40 ] || fail "a scan finds $(occurrences key) of 40 keys"
document placement explain
document top --once
expect 0,1 doctor -o json
document_is_whole doctor
has findings '\[.*'

echo "elastic: all as it should be, $documents documents"
