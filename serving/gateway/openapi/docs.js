"use strict";

const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};

const nameOf = (reference) => reference.split("/").pop();

/** A schema in a few words. */
const kind = (schema) => {
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const options = schema.anyOf || schema.oneOf;
  if (options) return options.map(kind).join(" | ");
  if (schema.type === "array") return kind(schema.items || {}) + "[]";
  return schema.type || "any";
};

const bounds = (schema) =>
  [schema, ...(schema.anyOf || [])]
    .flatMap((option) =>
      ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "default"]
        .filter((key) => option[key] !== undefined && option[key] !== null)
        .map((key) => key + " " + JSON.stringify(option[key])))
    .join(", ");

const fields = (schema) => {
  const table = make("table");
  const required = schema.required || [];
  for (const [name, field] of Object.entries(schema.properties || {})) {
    const row = make("tr");
    const cell = make("td");
    cell.append(make("code", name, required.includes(name) ? "required" : ""));
    const last = make("td", [field.description, bounds(field)].filter(Boolean).join(" · "));
    row.append(cell, make("td", kind(field)), last);
    table.append(row);
  }
  return table;
};

const operation = (method, path, described, schemas) => {
  const details = make("details");
  const summary = make("summary");
  summary.append(make("span", method.toUpperCase(), "method"), make("code", path), " ",
    described.summary || "");
  const inner = make("div");
  if (described.description) inner.append(make("p", described.description));
  for (const parameter of described.parameters || []) {
    inner.append(make("p", parameter.in + " parameter " + parameter.name + ": " + kind(parameter.schema)));
  }
  const body = described.requestBody;
  const schema = body && Object.values(body.content)[0].schema;
  if (schema) {
    inner.append(make("h4", "Request"));
    inner.append(fields(schema.$ref ? schemas[nameOf(schema.$ref)] : schema));
  }
  inner.append(make("h4", "Answers"));
  const answers = make("table");
  for (const [status, answer] of Object.entries(described.responses)) {
    const row = make("tr");
    const types = Object.values(answer.content || {}).map((one) => kind(one.schema || {}));
    row.append(make("td", status), make("td", types.join(", ")), make("td", answer.description));
    answers.append(row);
  }
  inner.append(answers);
  details.append(summary, inner);
  return details;
};

const show = (document_) => {
  document.getElementById("about").textContent = document_.info.description;
  const main = document.getElementById("operations");
  const schemas = document_.components.schemas;
  for (const [path, item] of Object.entries(document_.paths).sort()) {
    for (const [method, described] of Object.entries(item)) {
      main.append(operation(method, path, described, schemas));
    }
  }
  main.append(make("h2", "Schemas"));
  for (const [name, schema] of Object.entries(schemas).sort()) {
    const details = make("details");
    details.append(make("summary", name), make("pre", JSON.stringify(schema, null, 2)));
    main.append(details);
  }
};

fetch("/openapi.json")
  .then((answer) => answer.json())
  .then(show, (fault) => { document.getElementById("about").textContent = String(fault); });
