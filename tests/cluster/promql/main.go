// Promql reads what a chart rendered, its PrometheusRules and the Grafana dashboards in its ConfigMaps, and parses every expression in them.
//
//	usage: promql labels RENDERED            a JSON object a line: which labels an expression needs of a metric
//	       promql test RENDERED TESTS ...    evaluates alerts and panels on the series of these files
package main

import (
	"fmt"
	"os"
)

func main() {
	var problems []error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "labels":
		problems = report(args[1])
	case len(args) > 2 && args[0] == "test":
		problems = evaluate(args[1], args[2:])
	default:
		fmt.Fprintln(os.Stderr, "usage: promql labels RENDERED\n       promql test RENDERED TESTS ...")
		os.Exit(2)
	}
	for _, problem := range problems {
		fmt.Fprintf(os.Stderr, "promql: %v\n", problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}
