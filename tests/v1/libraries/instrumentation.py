"""OpenTelemetry's instrumentation of Replicate."""

from opentelemetry.instrumentation.replicate import ReplicateInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import replicate

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
ReplicateInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)

print(replicate.run("emulator/writer", input={"prompt": "a", "max_tokens": 3}))
version = replicate.models.get("emulator/writer").latest_version.id
pieces = replicate.run(f"emulator/writer:{version}", input={"prompt": "b", "max_tokens": 3})
print("".join(pieces))
print(
    "".join(map(str, replicate.stream("emulator/writer", input={"prompt": "c", "max_tokens": 3})))
)
prediction = replicate.predictions.create(model="emulator/writer", input={"prompt": "d"})
print(prediction.status)
for span in exporter.get_finished_spans():
    print(span.name, span.status.status_code.name, sorted(span.attributes))
ReplicateInstrumentor().uninstrument()
