// Jsonschemas writes a strict JSON schema for each kind of Kubernetes' OpenAPI document (swagger.json) and of CustomResourceDefinitions, as
// kubeconform looks for them: FOLDER/GROUP/KIND_VERSION.json in lower case, where the core group is v1. Fields that are not described are errors.
//
//	usage: jsonschemas FOLDER FILE ...
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

type object = map[string]any

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: jsonschemas FOLDER FILE ...")
		os.Exit(2)
	}
	for _, file := range os.Args[2:] {
		if err := convert(os.Args[1], file); err != nil {
			fmt.Fprintf(os.Stderr, "jsonschemas: %s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

func convert(folder, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var document object
	if err := yaml.Unmarshal(text, &document); err != nil {
		return err
	}
	if definitions, ok := document["definitions"].(object); ok {
		return builtin(folder, definitions)
	}
	if document["kind"] == "CustomResourceDefinition" {
		return custom(folder, document["spec"].(object))
	}
	return fmt.Errorf("neither an OpenAPI document nor a CustomResourceDefinition")
}

// Each kind with the definitions that it refers to.
func builtin(folder string, definitions object) error {
	for name, definition := range definitions {
		definition := definition.(object)
		tighten(definition)
		switch {
		case strings.HasSuffix(name, ".api.resource.Quantity"):
			definition["type"] = []string{"string", "number"}
		case strings.HasSuffix(name, ".intstr.IntOrString"):
			definition["type"] = []string{"string", "integer"}
		}
	}
	for name, definition := range definitions {
		kinds, _ := definition.(object)["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			kind := kind.(object)
			needed := object{}
			collect(name, definitions, needed)
			schema := object{"allOf": []any{object{"$ref": "#/definitions/" + name}}, "definitions": needed}
			if err := write(folder, kind["group"].(string), kind["kind"].(string), kind["version"].(string), schema); err != nil {
				return err
			}
		}
	}
	return nil
}

func custom(folder string, spec object) error {
	kind := spec["names"].(object)["kind"].(string)
	for _, version := range spec["versions"].([]any) {
		version := version.(object)
		schema := version["schema"].(object)["openAPIV3Schema"].(object)
		tighten(schema)
		// Every object has these, described or not.
		for field, kind := range map[string]string{"apiVersion": "string", "kind": "string", "metadata": "object"} {
			schema["properties"].(object)[field] = object{"type": kind}
		}
		if err := write(folder, spec["group"].(string), kind, version["name"].(string), schema); err != nil {
			return err
		}
	}
	return nil
}

// Refuses what a schema does not describe, in it and in all schemas below. Alternatives (anyOf and the like) only add conditions: they stay.
func tighten(schema object) {
	if properties, ok := schema["properties"].(object); ok {
		if schema["additionalProperties"] == nil && schema["x-kubernetes-preserve-unknown-fields"] != true {
			schema["additionalProperties"] = false
		}
		for _, property := range properties {
			tighten(property.(object))
		}
	}
	for _, inner := range []string{"items", "additionalProperties"} {
		if below, ok := schema[inner].(object); ok {
			tighten(below)
		}
	}
	if schema["nullable"] == true {
		schema["type"] = []any{schema["type"], "null"}
	}
}

// Puts a definition and all that it refers to into needed.
func collect(name string, definitions, needed object) {
	if _, known := needed[name]; known {
		return
	}
	needed[name] = definitions[name]
	references(definitions[name], func(reference string) {
		collect(strings.TrimPrefix(reference, "#/definitions/"), definitions, needed)
	})
}

func references(value any, found func(string)) {
	switch value := value.(type) {
	case object:
		if reference, ok := value["$ref"].(string); ok {
			found(reference)
		}
		for _, below := range value {
			references(below, found)
		}
	case []any:
		for _, below := range value {
			references(below, found)
		}
	}
}

func write(folder, group, kind, version string, schema object) error {
	if group == "" {
		group = version
	}
	schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	text, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	path := filepath.Join(folder, group, strings.ToLower(kind)+"_"+version+".json")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
