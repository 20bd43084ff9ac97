"""`tools/docs/run`: writes the generated parts of the documents."""

from docs.generated import ROOT, documents, slow_documents

for path, text in (documents() | slow_documents()).items():
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(path.relative_to(ROOT))
