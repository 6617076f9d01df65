package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
	"sigs.k8s.io/yaml"
)

// What a file says of what is to come of which series.
type tests struct {
	// By the alert's name.
	Alerts map[string][]alertCase
	Panels *panelCase
}

type alertCase struct {
	// What is the case.
	Case   string
	Series map[string]string
	// How long it is looked at.
	Until string
	// The labels that the alert fires with at the end, besides those of the rule. Without any it did not fire up to then.
	Fires []map[string]string
	// Of each of them.
	Summary string
}

type panelCase struct {
	Series map[string]string
	Until  string
}

func evaluate(file string, files []string) []error {
	all, err := read(file)
	if err != nil {
		return []error{err}
	}
	var problems []error
	fires, silent, shown := map[string]bool{}, map[string]bool{}, false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return []error{err}
		}
		var of tests
		if err := yaml.UnmarshalStrict(text, &of); err != nil {
			return []error{fmt.Errorf("%s: %w", file, err)}
		}
		for _, name := range slices.Sorted(maps.Keys(of.Alerts)) {
			for _, test := range of.Alerts[name] {
				fires[name] = fires[name] || len(test.Fires) > 0
				silent[name] = silent[name] || len(test.Fires) == 0
				if err := all.try(name, test); err != nil {
					problems = append(problems, fmt.Errorf("%s, when %s: %w", name, test.Case, err))
				}
			}
		}
		if of.Panels != nil {
			shown = true
			problems = append(problems, all.show(*of.Panels)...)
		}
	}
	if len(all.panels) > 0 && !shown {
		problems = append(problems, errors.New("there is no case of panels"))
	}
	for _, alert := range all.alerts {
		if !fires[alert.Alert] || !silent[alert.Alert] {
			problems = append(problems, fmt.Errorf("%s: there must be a case in which it fires, and one in which it does not", alert.Alert))
		}
	}
	return problems
}

// Evaluates an alert on the series of a case.
func (all rendered) try(name string, test alertCase) error {
	at := slices.IndexFunc(all.alerts, func(alert alert) bool { return alert.Alert == name })
	if at < 0 {
		return errors.New("there is no such alert")
	}
	alert := all.alerts[at]
	series, err := newSeries(test.Series)
	if err != nil {
		return err
	}
	until, err := model.ParseDuration(test.Until)
	if err != nil {
		return fmt.Errorf("until: %w", err)
	}
	fired, err := alert.fired(series, time.Duration(until))
	if err != nil {
		return err
	}
	var firing []map[string]string
	for _, one := range fired {
		if len(test.Fires) == 0 || one.last {
			firing = append(firing, one.labels)
		}
	}
	if !reflect.DeepEqual(sorted(firing), sorted(test.Fires)) {
		return fmt.Errorf("it fires with %v, not %v", firing, test.Fires)
	}
	for _, one := range fired {
		summary, err := alert.told(one)
		if err != nil {
			return err
		}
		if test.Summary != "" && summary != test.Summary {
			return fmt.Errorf("its summary is %q", summary)
		}
	}
	return nil
}

func sorted(all []map[string]string) []string {
	var texts []string
	for _, labels := range all {
		texts = append(texts, fmt.Sprint(labels))
	}
	slices.Sort(texts)
	return texts
}

// An alert that fired.
type firing struct {
	labels map[string]string
	value  float64
	// Whether it still does at the end.
	last bool
}

// What an alert fired with, as each step goes: after it was true for so long without a break.
func (a alert) fired(series series, until time.Duration) ([]firing, error) {
	holds, err := a.holds()
	if err != nil {
		return nil, err
	}
	results, err := series.query(a.Expr, until)
	if err != nil {
		return nil, err
	}
	var found []firing
	for _, result := range results {
		var since int64
		one := firing{labels: result.Metric.Map()}
		delete(one.labels, "__name__")
		fired := false
		for i, point := range result.Floats {
			if i == 0 || point.T > result.Floats[i-1].T+step.Milliseconds() {
				since = point.T
			}
			one.last = point.T-since >= holds.Milliseconds() && point.T == until.Milliseconds()
			fired = fired || point.T-since >= holds.Milliseconds()
			one.value = point.F
		}
		if fired {
			found = append(found, one)
		}
	}
	return found, nil
}

// Fills in the annotations; tells the summary.
func (a alert) told(of firing) (string, error) {
	const variables = "{{$labels := .Labels}}{{$value := .Value}}"
	data := template.AlertTemplateData(of.labels, nil, "", promql.Sample{F: of.value})
	told := map[string]string{}
	for name, text := range a.Annotations {
		none := func(context.Context, string, time.Time) (promql.Vector, error) { return nil, errors.New("not here") }
		expander := template.NewTemplateExpander(context.Background(), variables+text, name, data, 0, none, &url.URL{}, nil)
		filled, err := expander.Expand()
		if err != nil {
			return "", err
		}
		told[name] = filled
	}
	return told["summary"], nil
}

// Every panel shows something of the series, and each line by a name of its own.
func (all rendered) show(test panelCase) []error {
	series, err := newSeries(test.Series)
	if err != nil {
		return []error{err}
	}
	until, err := model.ParseDuration(test.Until)
	if err != nil {
		return []error{fmt.Errorf("until: %w", err)}
	}
	var problems []error
	for _, of := range all.panels {
		if err := of.shows(series, time.Duration(until)); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w: %s", of.where, err, of.text))
		}
	}
	return problems
}

func (p panel) shows(series series, until time.Duration) error {
	lines, err := series.query(p.text, until)
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		return errors.New("it shows nothing")
	}
	names := map[string]bool{}
	for _, line := range lines {
		name := legendLabel.ReplaceAllStringFunc(p.legend, func(found string) string {
			return line.Metric.Get(strings.Trim(found, "{} "))
		})
		if names[name] {
			return fmt.Errorf("two lines are called %q", name)
		}
		names[name] = true
	}
	return nil
}
