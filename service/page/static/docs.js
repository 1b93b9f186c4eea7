/** Swagger UI over the document of this service, wherever a proxy puts it. */

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger",
  deepLinking: true,
  // The validator would be asked elsewhere.
  validatorUrl: null,
});
