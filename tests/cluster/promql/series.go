package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// How often everything is scraped, and every rule is evaluated.
const step = time.Minute

var engine = promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute})

// Series from the beginning of time, as a Prometheus has them.
type series []storage.Series

// A hexadecimal number, where a zero again and again was meant.
var hexadecimal = regexp.MustCompile(`(^| )0x`)

// So many series, as in `name{label="value{1..200}"}`.
var many = regexp.MustCompile(`{1\.\.(\d+)}`)

func names(name string) []string {
	found := many.FindStringSubmatch(name)
	if found == nil {
		return []string{name}
	}
	count, _ := strconv.Atoi(found[1])
	var all []string
	for i := range count {
		all = append(all, strings.Replace(name, found[0], strconv.Itoa(i+1), 1))
	}
	return all
}

// Reads notations such as `name{label="value"}` and `0 1 1+1x10 _ stale`: a sample a step.
func newSeries(notations map[string]string) (series, error) {
	var all series
	for _, name := range slices.Sorted(maps.Keys(notations)) {
		if hexadecimal.MatchString(notations[name]) {
			return nil, fmt.Errorf("%s: %q: zeros are 0+0x…", name, notations[name])
		}
		for _, one := range names(name) {
			metric, values, err := parse.ParseSeriesDesc(one + " " + notations[name])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, promql.NewStorageSeries(promql.Series{Metric: metric, Floats: points(values)}))
		}
	}
	return all, nil
}

func points(values []parser.SequenceValue) []promql.FPoint {
	var points []promql.FPoint
	for i, value := range values {
		if !value.Omitted {
			points = append(points, promql.FPoint{T: int64(i) * step.Milliseconds(), F: value.Value})
		}
	}
	return points
}

// What an expression gives at each step until then. That Prometheus has something to say about it is an error.
func (s series) query(expr string, until time.Duration) (promql.Matrix, error) {
	query, err := engine.NewRangeQuery(context.Background(), s, nil, expr, time.Unix(0, 0), time.Unix(0, 0).Add(until), step)
	if err != nil {
		return nil, err
	}
	result := query.Exec(context.Background())
	if result.Err != nil {
		return nil, result.Err
	}
	for _, warning := range result.Warnings.AsErrors() {
		return nil, warning
	}
	return result.Matrix()
}

// Querier makes them a storage.Queryable.
func (s series) Querier(_, _ int64) (storage.Querier, error) {
	return querier{storage.NoopQuerier(), s}, nil
}

type querier struct {
	storage.Querier
	series series
}

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := &selected{SeriesSet: storage.EmptySeriesSet()}
	for _, of := range q.series {
		excludes := func(matcher *labels.Matcher) bool { return !matcher.Matches(of.Labels().Get(matcher.Name)) }
		if !slices.ContainsFunc(matchers, excludes) {
			found.rest = append(found.rest, of)
		}
	}
	return found
}

// One after the other; nothing goes wrong with them.
type selected struct {
	storage.SeriesSet
	at   storage.Series
	rest []storage.Series
}

// Next goes on to the next one.
func (s *selected) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.at, s.rest = s.rest[0], s.rest[1:]
	return true
}

// At tells the one that Next came to.
func (s *selected) At() storage.Series { return s.at }
