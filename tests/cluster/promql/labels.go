package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

var parse = parser.NewParser(parser.Options{})

// Writes which labels each expression needs of each metric.
func report(file string) []error {
	all, err := read(file)
	if err != nil {
		return []error{err}
	}
	var problems []error
	out := json.NewEncoder(os.Stdout)
	for _, of := range all.expressions() {
		needs, err := needsOf(of)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w: %s", of.where, err, of.text))
			continue
		}
		for _, metric := range slices.Sorted(maps.Keys(needs)) {
			line := map[string]any{"where": of.where, "metric": metric, "labels": slices.Sorted(maps.Keys(needs[metric]))}
			if err := out.Encode(line); err != nil {
				return []error{err}
			}
		}
	}
	return problems
}

type set map[string]struct{}

func setOf(names ...string) set {
	made := set{}
	for _, name := range names {
		made[name] = struct{}{}
	}
	return made
}

func (s set) and(names ...string) set {
	more := maps.Clone(s)
	maps.Copy(more, setOf(names...))
	return more
}

func (s set) without(names ...string) set {
	fewer := maps.Clone(s)
	for _, name := range names {
		delete(fewer, name)
	}
	return fewer
}

// Labels by metric.
type needs map[string]set

func needsOf(of expression) (needs, error) {
	parsed, err := parse.ParseExpr(of.text)
	if err != nil {
		return nil, err
	}
	found := needs{}
	if err := found.add(parsed, setOf(of.shows...)); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("it asks for no metric")
	}
	return found, nil
}

// Adds what an expression needs, so that its results have these labels; an error when they cannot.
func (n needs) add(of parser.Expr, wanted set) error {
	switch of := of.(type) {
	case *parser.VectorSelector:
		n.selected(of, wanted)
		return nil
	case *parser.MatrixSelector:
		return n.add(of.VectorSelector, wanted)
	case *parser.SubqueryExpr:
		return n.add(of.Expr, wanted)
	case *parser.ParenExpr:
		return n.add(of.Expr, wanted)
	case *parser.UnaryExpr:
		return n.add(of.Expr, wanted)
	case *parser.AggregateExpr:
		return n.aggregated(of, wanted)
	case *parser.BinaryExpr:
		return n.combined(of, wanted)
	case *parser.Call:
		return n.called(of, wanted)
	case *parser.NumberLiteral, *parser.StringLiteral:
		return nil
	default:
		return fmt.Errorf("%T is not known here", of)
	}
}

func (n needs) selected(of *parser.VectorSelector, wanted set) {
	metric, asked := of.Name, maps.Clone(wanted)
	for _, matcher := range of.LabelMatchers {
		if matcher.Name != "__name__" {
			asked = asked.and(matcher.Name)
		} else if metric == "" {
			metric = matcher.Value
		}
	}
	if n[metric] == nil {
		n[metric] = set{}
	}
	maps.Copy(n[metric], asked)
}

func (n needs) aggregated(of *parser.AggregateExpr, wanted set) error {
	if of.Op == parser.COUNT_VALUES {
		return errors.New("count_values is not known here")
	}
	switch {
	case of.Op == parser.TOPK || of.Op == parser.BOTTOMK:
		wanted = wanted.and(of.Grouping...)
	case of.Without:
		if kept := wanted.without(of.Grouping...); len(kept) < len(wanted) {
			return dropped(of.Op, wanted.without(slices.Collect(maps.Keys(kept))...))
		}
		wanted = wanted.and(of.Grouping...)
	default:
		if lost := wanted.without(of.Grouping...); len(lost) > 0 {
			return dropped(of.Op, lost)
		}
		wanted = setOf(of.Grouping...)
	}
	return n.add(of.Expr, wanted)
}

func dropped(by parser.ItemType, lost set) error {
	return fmt.Errorf("%s drops %v", by, slices.Sorted(maps.Keys(lost)))
}

func (n needs) combined(of *parser.BinaryExpr, wanted set) error {
	left, right := wanted, wanted
	if match := of.VectorMatching; match != nil {
		keys := setOf(match.MatchingLabels...)
		switch {
		case !match.On && len(keys) > 0:
			return errors.New("ignoring is not known here")
		case of.Op == parser.LOR:
			left, right = wanted.and(match.MatchingLabels...), wanted.and(match.MatchingLabels...)
		case of.Op.IsSetOperator():
			left, right = wanted.and(match.MatchingLabels...), keys
		case match.Card == parser.CardManyToOne:
			left, right = wanted.without(match.Include...).and(match.MatchingLabels...), keys.and(match.Include...)
		case match.Card == parser.CardOneToMany:
			left, right = keys.and(match.Include...), wanted.without(match.Include...).and(match.MatchingLabels...)
		case match.On:
			if lost := wanted.without(match.MatchingLabels...); len(lost) > 0 {
				return dropped(of.Op, lost)
			}
			left, right = keys, keys
		}
	}
	if err := n.add(of.LHS, left); err != nil {
		return err
	}
	return n.add(of.RHS, right)
}

func (n needs) called(of *parser.Call, wanted set) error {
	switch of.Func.Name {
	case "histogram_quantile":
		wanted = wanted.and("le")
	case "label_replace", "label_join", "absent", "absent_over_time", "info":
		return fmt.Errorf("%s is not known here", of.Func.Name)
	}
	for _, argument := range of.Args {
		if err := n.add(argument, wanted); err != nil {
			return err
		}
	}
	return nil
}
