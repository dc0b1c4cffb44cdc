#!/usr/bin/env bash
# One check of the Action (action.yml), with its reports: `check.sh NAME WORD…` runs `meshctl WORD…` and ends as it does.
set -euo pipefail
name=$1
shift
[[ -z $INVENTORY ]] || export MESHCTL_INVENTORY=$INVENTORY
report=$RUNNER_TEMP/meshctl-reports/$name
code=0
# What is printed may quote the inventory, and a line of that must not command the runner: annotations come after.
token=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
echo "::stop-commands::$token"
meshctl "$@" --report "sarif=$report.sarif" --report "junit=$report.xml" --report "markdown=$report.md" \
  --report "github=$report.annotations" 2>&1 || code=$?
echo "::$token::"
if [[ -e $report.annotations ]]; then
  cat "$report.annotations"
  cat "$report.md" >> "$GITHUB_STEP_SUMMARY"
fi
exit "$code"
