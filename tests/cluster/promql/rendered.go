package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"
)

// An expression, where it stands, and the texts that show labels of its results.
type expression struct {
	where, text string
	shows       []string
}

type rendered struct {
	alerts []alert
	panels []panel
	// Of dashboards: what is offered to choose from.
	variables []expression
}

// An alert of a PrometheusRule.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func (a alert) expression() expression {
	of := expression{where: a.Alert, text: a.Expr}
	for _, text := range a.Annotations {
		of.shows = append(of.shows, shown(annotationLabel, text)...)
	}
	return of
}

func (a alert) holds() (time.Duration, error) {
	holds, err := model.ParseDuration(a.For)
	return time.Duration(holds), err
}

// One query of a panel, and what its lines are called.
type panel struct {
	expression
	legend string
}

type dashboard struct {
	UID        string
	Templating struct{ List []variable }
	Panels     []struct {
		Title   string
		Targets []struct{ Expr, LegendFormat string }
	}
}

type variable struct {
	Name, Type, Query string
}

var (
	annotationLabel = regexp.MustCompile(`\$labels\.(\w+)`)
	legendLabel     = regexp.MustCompile(`{{\s*(\w+)\s*}}`)
	labelValues     = regexp.MustCompile(`^label_values\((.*), *(\w+)\)$`)
	anyVariable     = regexp.MustCompile(`\$(\w+|{[^}]*})`)
)

func shown(label *regexp.Regexp, text string) []string {
	var names []string
	for _, found := range label.FindAllStringSubmatch(text, -1) {
		names = append(names, found[1])
	}
	return names
}

func read(file string) (rendered, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return rendered{}, err
	}
	var all rendered
	for _, document := range strings.Split("\n"+string(text), "\n---") {
		if err := all.add([]byte(document)); err != nil {
			return rendered{}, fmt.Errorf("%s: %w", file, err)
		}
	}
	if len(all.alerts) == 0 && len(all.panels) == 0 {
		return rendered{}, fmt.Errorf("%s has neither alerts nor dashboards", file)
	}
	return all, nil
}

func (all *rendered) add(document []byte) error {
	var object struct {
		Kind string
		Data map[string]string
	}
	if err := yaml.Unmarshal(document, &object); err != nil {
		return err
	}
	switch object.Kind {
	case "PrometheusRule":
		return all.addRule(document)
	case "ConfigMap":
		for name, text := range object.Data {
			if strings.HasSuffix(name, ".json") {
				if err := all.addDashboard([]byte(text)); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
	}
	return nil
}

func (all *rendered) addRule(document []byte) error {
	var rule struct {
		Spec struct{ Groups []struct{ Rules []alert } }
	}
	if err := yaml.Unmarshal(document, &rule); err != nil {
		return err
	}
	for _, group := range rule.Spec.Groups {
		all.alerts = append(all.alerts, group.Rules...)
	}
	return nil
}

func (all *rendered) addDashboard(text []byte) error {
	var of dashboard
	if err := json.Unmarshal(text, &of); err != nil {
		return err
	}
	for _, variable := range of.Templating.List {
		if variable.Type != "query" {
			continue
		}
		where := of.UID + " $" + variable.Name
		asked := labelValues.FindStringSubmatch(variable.Query)
		if asked == nil {
			return fmt.Errorf("%s: %q is not label_values(SELECTOR, LABEL)", where, variable.Query)
		}
		selector, err := of.filled(asked[1])
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		all.variables = append(all.variables, expression{where, selector, asked[2:]})
	}
	for _, in := range of.Panels {
		for _, target := range in.Targets {
			where := of.UID + ", " + in.Title
			filled, err := of.filled(target.Expr)
			if err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			asked := expression{where, filled, shown(legendLabel, target.LegendFormat)}
			all.panels = append(all.panels, panel{asked, target.LegendFormat})
		}
	}
	return nil
}

// A query as Grafana sends it, when everything is chosen.
func (of dashboard) filled(query string) (string, error) {
	values := map[string]string{"__rate_interval": "5m", "__range": "1h", "__interval": "1m"}
	for _, variable := range of.Templating.List {
		values[variable.Name] = ".*"
	}
	var unknown []string
	filled := anyVariable.ReplaceAllStringFunc(query, func(found string) string {
		value, known := values[strings.Trim(found, "${}")]
		if !known {
			unknown = append(unknown, found)
		}
		return value
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("the dashboard has no variable %s", strings.Join(unknown, ", "))
	}
	return filled, nil
}

func (all rendered) expressions() []expression {
	found := append([]expression{}, all.variables...)
	for _, alert := range all.alerts {
		found = append(found, alert.expression())
	}
	for _, panel := range all.panels {
		found = append(found, panel.expression)
	}
	return found
}
