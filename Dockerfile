# The reference project with its keeper in one process. compose.yaml gives it PostgreSQL.
FROM python:3.13-slim-bookworm

RUN useradd --create-home --uid 10001 almanac
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY almanac almanac
RUN pip install --no-cache-dir --constraint constraints.txt ".[demo,postgresql]"

USER almanac
ENV DJANGO_SETTINGS_MODULE=almanac.config.settings ALMANAC_DATA=/app/data ALMANAC_KEEPER=1
VOLUME /app/data
EXPOSE 8000
CMD ["sh", "-c", "python -m django migrate && exec uvicorn almanac.config.asgi:application --host 0.0.0.0 --port 8000"]
