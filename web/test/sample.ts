/** A small description of an API, with what is hard about schemas. */
export const SAMPLE = {
  openapi: "3.1.0",
  info: { title: "Sample", version: "1" },
  security: [{ token: [] }],
  tags: [{ name: "Pictures", description: "Still ones." }, { name: "Empty" }, { name: "Models" }],
  paths: {
    "/v1/models": { get: { tags: ["Models"], summary: "List models", responses: { 200: { description: "All.", content: { "application/json": { schema: { type: "array", items: { $ref: "#/components/schemas/Model" } } } } } } } },
    "/v1/models/{name}/load": {
      parameters: [{ name: "name", in: "path", schema: { type: "string" } }],
      post: {
        tags: ["Models"],
        parameters: [{ name: "wait", in: "query", schema: { type: "boolean", default: true } }, { name: "name", in: "path", description: "Of a model.", schema: { type: "string" } }],
        responses: { 404: { $ref: "#/components/responses/Missing" } },
      },
    },
    "/v1/detect": {
      post: {
        tags: ["Pictures"],
        summary: "Find things",
        description: "In a `picture`.",
        security: [{}],
        parameters: [{ name: "classes", in: "query", schema: { type: "array", items: { type: "string" } } }, { name: "overlay", in: "query", content: { "application/json": { schema: { $ref: "#/components/schemas/Zone" } } } }, { $ref: "#/components/parameters/Tag" }, { name: "sid", in: "cookie" }],
        requestBody: { required: true, content: { "image/jpeg": { schema: { type: "string", format: "binary" } }, "application/json": { schema: { $ref: "#/components/schemas/Order" } } } },
        responses: { 200: { description: "Found.", headers: { etag: { description: "Names it." } } } },
      },
    },
    "/health": { get: { responses: {} } },
  },
  components: {
    parameters: { Tag: { name: "if-none-match", in: "header", schema: { type: "string" } } },
    responses: { Missing: { description: "There is none.", content: { "application/problem+json": { schema: { type: "object" } } } } },
    schemas: {
      Model: { type: "object", required: ["name"], properties: { name: { type: "string", description: "Its name", maxLength: 64 }, input: { type: "array", prefixItems: [{ type: "integer" }, { type: "integer" }] }, state: { enum: ["ready", "failed"] } } },
      Order: {
        type: "object",
        required: ["zones", "route"],
        properties: {
          zones: { type: "array", items: { $ref: "#/components/schemas/Zone" } },
          score: { type: ["number", "null"], minimum: 0, maximum: 1 },
          route: { oneOf: [{ $ref: "#/components/schemas/Split" }, { $ref: "#/components/schemas/Ensemble" }] },
          within: { anyOf: [{ type: "null" }, { $ref: "#/components/schemas/Zone" }] },
        },
      },
      Zone: { type: "object", required: ["name"], properties: { name: { type: "string", example: "door" }, inner: { type: "array", items: { $ref: "#/components/schemas/Zone" } } } },
      Split: { type: "object", required: ["split"], properties: { split: { type: "object", additionalProperties: { type: "integer", minimum: 1 } } } },
      Ensemble: { allOf: [{ type: "object", required: ["ensemble"], properties: { ensemble: { type: "array", minItems: 2, items: { type: "string" } } } }] },
      Loop: { $ref: "#/components/schemas/Loop" },
      "a/b": { type: "integer" },
    },
  },
};
